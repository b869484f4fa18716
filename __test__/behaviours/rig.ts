/**
 * The subject of the tests of IOMMU behaviour. It has a target, memory to map, and, if there are devices, their DMA.
 * The same tests run on the simulation and on the kernel, so both have the same behaviour.
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
import { guestAddressSpaceOf } from '../../ts/guest/guest-memory.ts';

/** A target with free addresses for tests. */
export interface TargetRig {
  readonly target: DmaTarget;
  /** The rules of the target. */
  readonly rules: IommuRules;
  /** Guest memory in which the target is not registered: it only leases memory. */
  readonly memory: GuestMemory;
  /** The number of mappings of the target. */
  count(): number;
}

/** The same with a device behind the IOMMU, and another one whose BAR it may reach. */
export interface DeviceRig extends TargetRig {
  /** The bytes that a device reads at an IOVA. After a fault: zeros, or the bytes from before. */
  dmaRead(iova: bigint, length: number): Promise<Uint8Array>;
  /** A DMA write of the device, without effect after a fault. */
  dmaWrite(iova: bigint, bytes: Uint8Array): Promise<void>;
  /** A device whose BAR 2 is memory, and decodes. */
  readonly peer: PhysicalFunction;
  /** Whether a mapping keeps host memory whose lease has ended, as mappings of the native core do. */
  readonly keepsLentMemory: boolean;
}

export type Declare<Rig> = (title: string, run: (t: ExecutionContext, rig: Rig) => Promise<void>) => void;

export const PAGE = 4096n;
/** The addresses of the tests, away from those of the rig. */
export const AT = 0x4000_0000n;
/** All that an IOMMU of 48 bits can map, except the addresses of a rig's RAM. */
const EVERYTHING = [AddressRange.between(0n, 0x1000_0000n), AddressRange.between(0x2000_0000n, 1n << 48n)];

/** Leaves the target empty, also if a test fails. */
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

/** Leases memory of a guest memory, in whole sub-mappings and at arbitrary addresses. */
export class Lender {
  readonly #memory: GuestMemory;
  readonly #lent: DmaMapRequest[] = [];
  #next = 0n;

  private constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /** The leases of a guest memory. */
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
    if (request?.name !== name) throw new Error('the leases have just mapped it');
    return request;
  }

  /**
   * The request with the current lease. The lease of a device's memory ends before a reset, and is renewed after it.
   */
  async now(lent: DmaMapRequest): Promise<DmaMapRequest> {
    await guestAddressSpaceOf(this.#memory).betweenChanges(() => {}); // leased again once the device decodes
    return at(
      this.#lent.findLast(({ name }) => name === lent.name),
      lent.range.start,
    );
  }
}

/** Requests for private memory of these lengths, at the test's IOVAs. */
export async function requests(memory: GuestMemory, ...lengths: bigint[]): Promise<DmaMapRequest[]> {
  const lender = await Lender.of(memory);
  const lent: DmaMapRequest[] = [];
  for (const length of lengths) lent.push(await lender.lend('private', length));
  return lent;
}

/** A file that is closed at the end of the test, and a request for all of it. */
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

/** Checks that a call is rejected with that code and one of those errnos, and names target and range. */
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
  if (error === undefined) throw new Error('it was not rejected');
  return error;
}
