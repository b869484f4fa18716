/**
 * The rules of VFIO type1v2 as tests of a DMA target: the same suite runs on the simulated IOMMU and on the kernel's, so
 * that what the one says is what the other does.
 */
import type { ExecutionContext } from 'ava';
import {
  AddressRange,
  type DmaMapRequest,
  type DmaTarget,
  type ErrorCode,
  type GuestMemory,
  PeerDmaError,
} from '../../ts/index.ts';

/** A target with room to try things in. */
export interface TargetRig {
  readonly target: DmaTarget;
  /** Guest memory that the target does not follow: it only lends memory to map. */
  readonly memory: GuestMemory;
  /** How many mappings the target holds. */
  count(): number;
}

export type Declare = (title: string, run: (t: ExecutionContext, rig: TargetRig) => Promise<void>) => void;

const PAGE = 4096n;
const AT = 0x4000_0000n;

/** Requests with host memory of these lengths, for whatever IOVAs the test wants them at. */
async function requests(memory: GuestMemory, ...lengths: bigint[]): Promise<DmaMapRequest[]> {
  const lent: DmaMapRequest[] = [];
  await memory.dmaMappers.addDmaMapper({
    name: 'lender',
    needsVa: true,
    mapDma: (request) => {
      lent.push(request);
    },
    unmapDma: () => {},
  });
  let start = 0n;
  for (const length of lengths) {
    const region = await memory.regions.addRegion({
      name: `memory at ${start}`,
      range: AddressRange.of(start, length),
    });
    await region.addMapping({ range: AddressRange.of(0n, length), backing: 'private' });
    await region.map();
    start += length;
  }
  return lent;
}

function at(request: DmaMapRequest | undefined, iova: bigint): DmaMapRequest {
  if (request === undefined) throw new Error('no request');
  return { ...request, range: AddressRange.of(iova, request.range.length) };
}

async function refused(
  t: ExecutionContext,
  action: () => void | Promise<void>,
  code: ErrorCode,
  errno?: string,
): Promise<void> {
  const error = await t.throwsAsync(async () => action(), { instanceOf: PeerDmaError });
  t.is(error?.code, code);
  if (errno !== undefined) t.true(errno.split('|').includes(error?.errno ?? ''), `errno ${error?.errno}`);
  t.truthy(error?.target);
  t.truthy(error?.range);
}

/** All that an IOMMU of 48 bits can map. */
const EVERYTHING = AddressRange.of(0n, 1n << 48n);

/** Declares the suite. Each test leaves the target empty, whatever it does. */
export function type1Rules(declareTest: Declare): void {
  const declare: Declare = (title, run) =>
    declareTest(title, async (t, rig) => {
      try {
        await run(t, rig);
      } finally {
        await rig.target.unmapDma(EVERYTHING);
      }
    });
  declare('mappings that overlap in any way are refused: EEXIST', async (t, { target, memory, count }) => {
    const [small, large] = await requests(memory, PAGE, 2n * PAGE);
    await target.mapDma(at(large, AT));
    for (const iova of [AT, AT + PAGE])
      await refused(t, () => target.mapDma(at(small, iova)), 'ERR_IOVA_OVERLAP', 'EEXIST');
    for (const iova of [AT, AT - PAGE, AT + PAGE]) {
      await refused(t, () => target.mapDma(at(large, iova)), 'ERR_IOVA_OVERLAP', 'EEXIST');
    }
    await target.mapDma(at(small, AT - PAGE));
    await target.mapDma(at(small, AT + 2n * PAGE));
    t.is(count(), 3, 'neighbours are fine');
  });

  declare(
    'IOVAs that are no whole pages, reserved or beyond the IOMMU are refused: EINVAL',
    async (t, { target, memory, count }) => {
      const [request] = await requests(memory, PAGE);
      await refused(t, () => target.mapDma(at(request, AT + 512n)), 'ERR_UNALIGNED', 'EINVAL');
      for (const iova of [0xfee0_0000n, 0xfeef_f000n, 1n << 48n, 1n << 57n]) {
        await refused(t, () => target.mapDma(at(request, iova)), 'ERR_IOVA_UNREACHABLE', 'EINVAL');
      }
      await refused(
        t,
        () => target.mapDma(at(request, (1n << 64n) - PAGE)),
        'ERR_IOVA_UNREACHABLE',
        'EINVAL|EOVERFLOW',
      );
      t.is(count(), 0);
      for (const iova of [0n, 0xfedf_f000n, 0xfef0_0000n, 1n << 39n, 1n << 47n]) await target.mapDma(at(request, iova));
      t.is(count(), 5, 'the same memory at five addresses');
    },
  );

  declare(
    'a request without host memory, or with that of another size, is an error and nothing else',
    async (t, { target, memory, count }) => {
      const [request] = await requests(memory, PAGE);
      const { hostMemory: _, ...without } = at(request, AT);
      await refused(t, () => target.mapDma(without), 'ERR_HOST_MEMORY_REQUIRED');
      await refused(
        t,
        () => target.mapDma({ ...at(request, AT), range: AddressRange.of(AT, 2n * PAGE) }),
        'ERR_INVALID_ARGUMENT',
      );
      const forged = {
        ...at(request, AT),
        hostMemory: { length: PAGE, read: () => new Uint8Array(), write: () => {} },
      };
      await t.throwsAsync(async () => target.mapDma(forged as unknown as DmaMapRequest), {
        code: 'ERR_INVALID_ARGUMENT',
      });
      t.is(count(), 0);
    },
  );

  declare(
    'an unmap that would cut a mapping is refused and removes nothing: EINVAL',
    async (t, { target, memory, count }) => {
      const [request] = await requests(memory, 4n * PAGE);
      await target.mapDma(at(request, AT));
      for (const [start, pages] of [
        [0n, 2n],
        [2n, 2n],
        [1n, 2n],
        [-1n, 3n],
        [3n, 3n],
      ] as const) {
        await refused(
          t,
          () => target.unmapDma(AddressRange.of(AT + start * PAGE, pages * PAGE)),
          'ERR_UNMAP_FAILED',
          'EINVAL',
        );
        t.is(count(), 1);
      }
      await target.unmapDma(AddressRange.of(AT - PAGE, 6n * PAGE));
      t.is(count(), 0, 'a larger range is fine');
    },
  );

  declare('an unmap may span gaps, and find nothing', async (t, { target, memory, count }) => {
    const [request] = await requests(memory, PAGE);
    for (const page of [0n, 2n, 4n, 6n]) await target.mapDma(at(request, AT + page * PAGE));
    await target.unmapDma(AddressRange.of(AT + PAGE, 4n * PAGE));
    t.is(count(), 2);
    await target.unmapDma(AddressRange.of(AT, 7n * PAGE));
    t.is(count(), 0);
    await target.unmapDma(AddressRange.of(AT, 7n * PAGE));
    t.is(count(), 0);
  });

  declare('a batch is mapped as a whole or not at all', async (t, { target, memory, count }) => {
    const [request] = await requests(memory, PAGE);
    const batch = [0n, 1n, 2n, 3n].map((page) => at(request, AT + page * PAGE));
    await target.mapDma(at(request, AT + 2n * PAGE));
    const error = await t.throwsAsync(async () => target.mapDmaBatch?.(batch), { instanceOf: PeerDmaError });
    t.is(error?.code, 'ERR_IOVA_OVERLAP');
    t.is(String(error?.range), String(batch[2]?.range), 'names the one that failed');
    t.is(count(), 1);
    await target.unmapDma(AddressRange.of(AT + 2n * PAGE, PAGE));
    await target.mapDmaBatch?.(batch);
    t.is(count(), 4);
  });

  declare(
    'more mappings than the limit are refused: ENOSPC, before the IOVA is looked at',
    async (t, { target, memory, count }) => {
      const [request] = await requests(memory, PAGE);
      const limit = 65535;
      const all = Array.from({ length: limit }, (_, page) => at(request, AT + BigInt(page) * PAGE));
      await target.mapDmaBatch?.(all);
      t.is(count(), limit);
      await refused(t, () => target.mapDma(at(request, 0n)), 'ERR_MAPPING_LIMIT', 'ENOSPC');
      await refused(t, () => target.mapDma(at(request, 0xfee0_0000n)), 'ERR_MAPPING_LIMIT', 'ENOSPC');
      await refused(t, () => target.mapDma(at(request, AT)), 'ERR_IOVA_OVERLAP', 'EEXIST');
      await target.unmapDma(AddressRange.of(AT, BigInt(limit) * PAGE));
      t.is(count(), 0);
    },
  );
}
