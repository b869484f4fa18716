/**
 * Mapping and unmapping by an IOMMU, with any rules. Rejected calls have a code and errno, and leave mappings as they
 * were.
 */
import { AddressRange, type DmaMapRequest, PeerDmaError } from '../../ts/index.ts';
import { AT, type Declare, PAGE, type TargetRig, at, cleaning, fileRequest, refused, requests } from './rig.ts';

/** Declares the suite. Each test leaves the target empty, also if it fails. */
export function iommuBehaviours(declareTest: Declare<TargetRig>): void {
  const declare = cleaning(declareTest);
  declare('mappings that overlap in any way are rejected: EEXIST', async (t, { target, memory, count }) => {
    const [small, large] = await requests(memory, PAGE, 2n * PAGE);
    await target.mapDma(at(large, AT));
    for (const iova of [AT, AT + PAGE])
      await refused(t, () => target.mapDma(at(small, iova)), 'ERR_IOVA_OVERLAP', ['EEXIST']);
    for (const iova of [AT, AT - PAGE, AT + PAGE]) {
      await refused(t, () => target.mapDma(at(large, iova)), 'ERR_IOVA_OVERLAP', ['EEXIST']);
    }
    await target.mapDma(at(small, AT - PAGE));
    await target.mapDma(at(small, AT + 2n * PAGE));
    t.is(count(), 3, 'neighbours are accepted');
  });

  declare('unaligned, reserved and unreachable IOVAs are rejected: EINVAL', async (t, { target, memory, count }) => {
    const [request] = await requests(memory, PAGE);
    await refused(t, () => target.mapDma(at(request, AT + 512n)), 'ERR_UNALIGNED', ['EINVAL']);
    for (const iova of [0xfee0_0000n, 0xfeef_f000n, 1n << 48n, 1n << 57n]) {
      await refused(t, () => target.mapDma(at(request, iova)), 'ERR_IOVA_UNREACHABLE', ['EINVAL']);
    }
    await refused(t, () => target.mapDma(at(request, (1n << 64n) - PAGE)), 'ERR_IOVA_UNREACHABLE', [
      'EINVAL',
      'EOVERFLOW',
    ]);
    t.is(count(), 0);
    for (const iova of [0n, 0xfedf_f000n, 0xfef0_0000n, 1n << 39n, 1n << 47n]) await target.mapDma(at(request, iova));
    t.is(count(), 5, 'the same memory at five addresses');
  });

  declare(
    'private memory without host memory, or with that of another size, is rejected and maps nothing',
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
    'an unmap that would cut a mapping is rejected and removes nothing',
    async (t, { target, rules, memory, count }) => {
      const [request, other] = await requests(memory, 4n * PAGE, PAGE);
      await target.mapDma(at(request, AT));
      await target.mapDma(at(other, AT - 2n * PAGE));
      for (const [start, pages] of [
        [0n, 2n],
        [2n, 2n],
        [1n, 2n],
        [-1n, 3n],
        [3n, 3n],
        [-2n, 3n],
      ] as const) {
        await refused(t, () => target.unmapDma(AddressRange.of(AT + start * PAGE, pages * PAGE)), 'ERR_UNMAP_FAILED', [
          rules.cut,
        ]);
        t.is(count(), 2);
      }
      await target.unmapDma(AddressRange.of(AT - 2n * PAGE, 7n * PAGE));
      t.is(count(), 0, 'a larger range is accepted');
    },
  );

  declare('an unmap may span gaps, and may be empty', async (t, { target, memory, count }) => {
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
    t.is(String(error?.range), String(batch[2]?.range), 'the error names the failed request');
    t.is(count(), 1);
    await target.unmapDma(AddressRange.of(AT + 2n * PAGE, PAGE));
    await target.mapDmaBatch?.(batch);
    t.is(count(), 4);
  });

  declare('mappings beyond the limit are rejected before the IOVA is checked: ENOSPC', async (t, rig) => {
    const { target, rules, memory, count } = rig;
    const [request] = await requests(memory, PAGE);
    const limit = rules.maxMappings === Infinity ? MANY : rules.maxMappings;
    const all = Array.from({ length: limit }, (_, page) => at(request, AT + BigInt(page) * PAGE));
    await target.mapDmaBatch?.(all);
    t.is(count(), limit);
    if (rules.maxMappings !== Infinity) {
      await refused(t, () => target.mapDma(at(request, 0n)), 'ERR_MAPPING_LIMIT', ['ENOSPC']);
      await refused(t, () => target.mapDma(at(request, 0xfee0_0000n)), 'ERR_MAPPING_LIMIT', ['ENOSPC']);
    }
    await refused(t, () => target.mapDma(at(request, AT)), 'ERR_IOVA_OVERLAP', ['EEXIST']);
    await target.unmapDma(AddressRange.of(AT, BigInt(limit) * PAGE));
    t.is(count(), 0);
  });

  declare(
    'a file is mapped at any number of addresses, and after it was closed',
    async (t, { target, memory, count }) => {
      const { file, request } = await fileRequest(t, memory, 2n * PAGE);
      file.close(); // its region keeps it open
      await target.mapDma(at(request, AT));
      await target.mapDma({ ...at(request, AT + 4n * PAGE), writable: false });
      t.is(count(), 2);
      await target.unmapDma(AddressRange.of(AT, 2n * PAGE));
      await target.unmapDma(AddressRange.of(AT + 4n * PAGE, 2n * PAGE));
      t.is(count(), 0);
    },
  );

  declare(
    'an unmap of several mappings removes each, in any order of their creation',
    async (t, { target, memory, count }) => {
      const [request] = await requests(memory, PAGE);
      for (const page of [5n, 1n, 3n]) await target.mapDma(at(request, AT + page * PAGE));
      await target.unmapDma(AddressRange.of(AT + PAGE, 3n * PAGE));
      t.is(count(), 1);
      await refused(t, () => target.mapDma(at(request, AT + 5n * PAGE)), 'ERR_IOVA_OVERLAP', ['EEXIST']);
      await target.mapDma(at(request, AT + 3n * PAGE));
      t.is(count(), 2);
    },
  );
}

/** More than the limit of type1. */
const MANY = 65_536;
