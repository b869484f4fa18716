/**
 * What the behaviours of an IOMMU are tried on: a target, memory to map into it, and, where there are devices, what their DMA
 * finds. The same tests run on the simulation and on the kernel, so that what the one says is what the other does.
 */
import type { ExecutionContext } from 'ava';
import {
  AddressRange,
  type Backing,
  type DmaMapRequest,
  type DmaTarget,
  type ErrorCode,
  type GuestMemory,
  MemoryFile,
  PeerDmaError,
  type PhysicalFunction,
} from '../../ts/index.ts';
import type { IommuRules } from '../../ts/dma/iommu-rules.ts';
import { addressSpaceOf } from '../../ts/guest/guest-memory.ts';

/** A target with room to try things in. */
export interface TargetRig {
  readonly target: DmaTarget;
  /** Whose rules it keeps. */
  readonly rules: IommuRules;
  /** Guest memory that the target does not follow: it only lends memory to map. */
  readonly memory: GuestMemory;
  /** How many mappings the target holds. */
  count(): number;
}

/** The same with a device behind the IOMMU, and another one whose BAR it may reach. */
export interface DeviceRig extends TargetRig {
  /** What a device reads at an IOVA: zeros, or what was there before, where it faults. */
  dmaRead(iova: bigint, length: number): Promise<Uint8Array>;
  /** What a device writes there; nothing, where it faults. */
  dmaWrite(iova: bigint, bytes: Uint8Array): Promise<void>;
  /** A device whose BAR 2 is memory, and decodes. */
  readonly peer: PhysicalFunction;
  /** Whether a mapping keeps host memory that the lender has taken back, as the native core's mappings do. */
  readonly keepsLentMemory: boolean;
}

export type Declare<Rig> = (title: string, run: (t: ExecutionContext, rig: Rig) => Promise<void>) => void;

export const PAGE = 4096n;
/** Where the behaviours map, with nothing of the rig's own nearby. */
export const AT = 0x4000_0000n;
/** All that an IOMMU of 48 bits can map, but for where a rig may have RAM of its own. */
const EVERYTHING = [AddressRange.between(0n, 0x1000_0000n), AddressRange.between(0x2000_0000n, 1n << 48n)];

/** Leaves the target empty, whatever a test does. */
export function cleaning<Rig extends TargetRig>(declare: Declare<Rig>): Declare<Rig> {
  return (title, run) =>
    declare(title, async (t, rig) => {
      try {
        await run(t, rig);
      } finally {
        for (const range of EVERYTHING) await rig.target.unmapDma(range);
      }
    });
}

const lenders = new WeakMap<GuestMemory, Lender>();

/** Lends memory of a guest memory, whole and at addresses of no meaning. */
export class Lender {
  readonly #memory: GuestMemory;
  readonly #lent: DmaMapRequest[] = [];
  #next = 0n;

  private constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /** The one of a guest memory. */
  static async of(memory: GuestMemory): Promise<Lender> {
    const known = lenders.get(memory);
    if (known !== undefined) return known;
    const lender = new Lender(memory);
    lenders.set(memory, lender);
    await memory.dmaMappers.addDmaMapper({
      name: 'lender',
      needsVa: true,
      mapDma: (request) => void lender.#lent.push(request),
      unmapDma: () => {},
    });
    return lender;
  }

  /** A complete request for so many bytes of a backing. */
  async lend(backing: Backing, length: bigint, options: { kind?: 'ram' | 'device' } = {}): Promise<DmaMapRequest> {
    const { kind = 'ram' } = options;
    const name = `memory ${this.#lent.length}`;
    const region = await this.#memory.regions.addRegion({ name, range: AddressRange.of(this.#next, length), kind });
    await region.addMapping({ range: AddressRange.of(0n, length), backing });
    await region.mapToGuest();
    this.#next += length;
    const request = this.#lent.at(-1);
    if (request?.name !== name) throw new Error('the lender has just mapped it');
    return request;
  }

  /** The request for what was lent as it is lent now: that of a device that is reset is taken back before, and lent anew. */
  async now(lent: DmaMapRequest): Promise<DmaMapRequest> {
    await addressSpaceOf(this.#memory).betweenChanges(() => {}); // lent anew once the device answers
    return at(
      this.#lent.findLast(({ name }) => name === lent.name),
      lent.range.start,
    );
  }
}

/** Requests for private memory of these lengths, for whatever IOVAs the test wants them at. */
export async function requests(memory: GuestMemory, ...lengths: bigint[]): Promise<DmaMapRequest[]> {
  const lender = await Lender.of(memory);
  const lent: DmaMapRequest[] = [];
  for (const length of lengths) lent.push(await lender.lend('private', length));
  return lent;
}

/** A file that ends with the test, and a request for all of it. */
export async function fileRequest(
  t: ExecutionContext,
  memory: GuestMemory,
  length: bigint,
): Promise<{ file: MemoryFile; request: DmaMapRequest }> {
  const file = MemoryFile.create(length, { name: 'lent file' });
  t.teardown(() => file.close());
  return { file, request: await (await Lender.of(memory)).lend({ file, offset: 0n }, length) };
}

/** The same memory at an IOVA. */
export function at(request: DmaMapRequest | undefined, iova: bigint): DmaMapRequest {
  if (request === undefined) throw new Error('no request');
  return { ...request, range: AddressRange.of(iova, request.range.length) };
}

/** Checks that a call is refused with that code and, where one is due, one of those errnos, naming target and range. */
export async function refused(
  t: ExecutionContext,
  action: () => void | Promise<void>,
  code: ErrorCode,
  errnos: readonly (string | undefined)[] = [],
): Promise<PeerDmaError> {
  const error = await t.throwsAsync(async () => action(), { instanceOf: PeerDmaError });
  t.is(error?.code, code, error?.message);
  if (errnos.length > 0) t.true(errnos.includes(error?.errno), `errno ${error?.errno}`);
  t.truthy(error?.target);
  t.truthy(error?.range);
  if (error === undefined) throw new Error('it was not refused');
  return error;
}
