// What is no argument is refused with a code, and nothing changes.
import test, { type ExecutionContext } from 'ava';
import {
  AddressRange,
  type Backing,
  type ErrorCode,
  GuestMemory,
  type HostMemory,
  SimulatedIommu,
} from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

const wrong = <T>(value: unknown): T => value as T;
const U64 = 1n << 64n;
const LIMIT = 1n << 32n; // of guest() in these tests

/** Every attempt fails with its code, and leaves memory and target as they were. */
async function refused(
  t: ExecutionContext,
  memory: GuestMemory,
  target: RecordingTarget,
  attempts: readonly (readonly [what: string, code: ErrorCode, attempt: () => unknown])[],
): Promise<void> {
  const before = memory.inspect();
  target.takeCalls();
  for (const [what, code, attempt] of attempts) {
    // A call that throws at once is as good as one that rejects.
    const pending = (async () => attempt())();
    await rejectsCode(t, pending, code, what);
    t.deepEqual(memory.inspect(), before, what);
    t.deepEqual(target.calls, [], what);
  }
}

test('a place outside of 64 bits, of the address width, or of whole pages is refused', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(2) });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  const add = (range: AddressRange): Promise<unknown> => memory.regions.addRegion({ name: 'r', range });

  await refused(t, memory, target, [
    ['beyond u64', 'ERR_OUT_OF_RANGE', () => add(AddressRange.of(U64 - PAGE, at(2)))],
    ['the last page of u64', 'ERR_OUT_OF_RANGE', () => add(AddressRange.of(U64 - PAGE, PAGE))],
    ['across the width', 'ERR_OUT_OF_RANGE', () => add(AddressRange.of(LIMIT - PAGE, at(2)))],
    ['from the width on', 'ERR_OUT_OF_RANGE', () => add(AddressRange.of(LIMIT, PAGE))],
    ['unaligned start', 'ERR_UNALIGNED', () => add(AddressRange.of(1n, PAGE))],
    ['unaligned length', 'ERR_UNALIGNED', () => add(AddressRange.of(0n, PAGE + 1n))],
    ['both unaligned, the end not', 'ERR_UNALIGNED', () => add(AddressRange.of(PAGE - 1n, 1n))],
    ['empty', 'ERR_EMPTY_RANGE', () => add(AddressRange.of(0n, 0n))],
    ['a forged range', 'ERR_INVALID_ARGUMENT', () => add(wrong({ start: 0n, end: PAGE, length: PAGE }))],
    ['no range', 'ERR_INVALID_ARGUMENT', () => add(wrong(undefined))],
    ['bar beyond u64', 'ERR_OUT_OF_RANGE', () => bar.mapToGuest(U64 - PAGE)],
    ['bar above u64', 'ERR_OUT_OF_RANGE', () => bar.mapToGuest(U64)],
    ['bar across the width', 'ERR_OUT_OF_RANGE', () => bar.mapToGuest(LIMIT - PAGE)],
    ['bar unaligned', 'ERR_UNALIGNED', () => bar.mapToGuest(1n)],
    ['bar at a number', 'ERR_INVALID_ARGUMENT', () => bar.mapToGuest(wrong(4096))],
    ['bar at NaN', 'ERR_INVALID_ARGUMENT', () => bar.mapToGuest(wrong(NaN))],
    ['bar below 0', 'ERR_INVALID_ARGUMENT', () => bar.mapToGuest(-PAGE)],
    ['bar nowhere', 'ERR_INVALID_ARGUMENT', () => bar.mapToGuest(wrong(undefined))],
    ['empty bar', 'ERR_EMPTY_RANGE', () => memory.newDeviceMemory({ name: 'b', length: 0n })],
    ['unaligned bar', 'ERR_UNALIGNED', () => memory.newDeviceMemory({ name: 'b', length: 100n })],
    ['huge bar', 'ERR_OUT_OF_RANGE', () => memory.newDeviceMemory({ name: 'b', length: LIMIT + PAGE })],
    ['bar of a number', 'ERR_INVALID_ARGUMENT', () => memory.newDeviceMemory({ name: 'b', length: wrong(4096) })],
    ['bar without name', 'ERR_INVALID_ARGUMENT', () => memory.newDeviceMemory({ name: wrong(7), length: PAGE })],
  ]);
  await t.notThrowsAsync(add(AddressRange.of(LIMIT - PAGE, PAGE)), 'the last page is fine');
});

test('a mapping outside of its region, its file or of whole pages is refused', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 4, 1);
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(8, 8) });
  await region.mapToGuest();
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(2) });
  await bar.mapToGuest(0n);
  const add = (range: AddressRange, backing: unknown = 'private'): Promise<void> =>
    region.addMapping({ range, backing: wrong<Backing>(backing) });

  await refused(t, memory, target, [
    ['beyond the region', 'ERR_OUT_OF_RANGE', () => add(pages(7, 2))],
    ['an address instead of an offset', 'ERR_OUT_OF_RANGE', () => add(pages(8, 1))],
    ['the end of u64', 'ERR_OUT_OF_RANGE', () => add(AddressRange.of(U64 - PAGE, PAGE))],
    ['unaligned', 'ERR_UNALIGNED', () => add(AddressRange.of(0n, 5n))],
    ['a forged range', 'ERR_INVALID_ARGUMENT', () => add(wrong({ start: 0n, end: PAGE, length: PAGE }))],
    ['past the file', 'ERR_OUT_OF_RANGE', () => add(pages(0, 2), { file, offset: at(3) })],
    ['far past the file', 'ERR_OUT_OF_RANGE', () => add(pages(0, 1), { file, offset: U64 - PAGE })],
    ['offset above u64', 'ERR_OUT_OF_RANGE', () => add(pages(0, 1), { file, offset: U64 })],
    ['offset unaligned', 'ERR_UNALIGNED', () => add(pages(0, 1), { file, offset: 1n })],
    ['offset negative', 'ERR_INVALID_ARGUMENT', () => add(pages(0, 1), { file, offset: -PAGE })],
    ['offset a number', 'ERR_INVALID_ARGUMENT', () => add(pages(0, 1), { file, offset: 0 })],
    ['offset NaN', 'ERR_INVALID_ARGUMENT', () => add(pages(0, 1), { file, offset: NaN })],
    ['no offset', 'ERR_INVALID_ARGUMENT', () => add(pages(0, 1), { file })],
    ['a forged file', 'ERR_INVALID_ARGUMENT', () => add(pages(0, 1), { file: { fd: 3, length: PAGE }, offset: 0n })],
    ['a file by prototype', 'ERR_INVALID_ARGUMENT', () => add(pages(0, 1), { file: Object.create(file), offset: 0n })],
    ['no backing', 'ERR_INVALID_ARGUMENT', () => add(pages(0, 1), null)],
    ['another backing', 'ERR_INVALID_ARGUMENT', () => add(pages(0, 1), 'shared')],
    ['a bare file', 'ERR_INVALID_ARGUMENT', () => add(pages(0, 1), file)],
    ['remove beyond', 'ERR_OUT_OF_RANGE', () => region.removeMappings(pages(4, 5))],
    ['remove unaligned', 'ERR_UNALIGNED', () => region.removeMappings(AddressRange.of(0n, 5n))],
    ['remove nothing', 'ERR_INVALID_ARGUMENT', () => region.removeMappings(wrong(0))],
    [
      'bar offset a number',
      'ERR_INVALID_ARGUMENT',
      () => bar.addMapping({ range: AddressRange.of(wrong(0), PAGE), backing: 'private' }),
    ],
    [
      'bar beyond',
      'ERR_OUT_OF_RANGE',
      () => bar.addMapping({ range: AddressRange.of(PAGE, at(2)), backing: 'private' }),
    ],
    [
      'bar beyond u64',
      'ERR_OUT_OF_RANGE',
      () => bar.addMapping({ range: AddressRange.of(U64 - PAGE, at(2)), backing: 'private' }),
    ],
    ['bar empty', 'ERR_EMPTY_RANGE', () => bar.addMapping({ range: AddressRange.of(0n, 0n), backing: 'private' })],
    ['bar unmap unaligned', 'ERR_UNALIGNED', () => bar.removeMappings(AddressRange.of(8n, 8n))],
    ['bar unmap NaN', 'ERR_INVALID_ARGUMENT', () => bar.removeMappings(AddressRange.of(0n, wrong(NaN)))],
  ]);
});

test('a file that was closed backs nothing more', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 1, 1);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 1) });
  file.close();
  await rejectsCode(t, region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } }), 'ERR_CLOSED');
});

test('a region takes a name, a kind and a priority that are such', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  const range = pages(0, 1);
  const add = (options: object): Promise<unknown> => memory.regions.addRegion(wrong({ name: 'r', range, ...options }));
  await refused(t, memory, target, [
    ['no name', 'ERR_INVALID_ARGUMENT', () => add({ name: '' })],
    ['a number as name', 'ERR_INVALID_ARGUMENT', () => add({ name: 1 })],
    ['no such kind', 'ERR_INVALID_ARGUMENT', () => add({ kind: 'rom' })],
    ['a kind of every object', 'ERR_INVALID_ARGUMENT', () => add({ kind: 'toString' })],
    ['priority NaN', 'ERR_INVALID_ARGUMENT', () => add({ priority: NaN })],
    ['priority infinite', 'ERR_INVALID_ARGUMENT', () => add({ priority: Infinity })],
    ['priority bigint', 'ERR_INVALID_ARGUMENT', () => add({ priority: 1n })],
    ['priority text', 'ERR_INVALID_ARGUMENT', () => add({ priority: '1' })],
  ]);
});

test('rejects values that are not targets', async (t) => {
  const memory = await guest(t);
  for (const target of [undefined, null, {}, { mapDma: () => {} }, { mapDma: 1, unmapDma: 2 }, 'target']) {
    await rejectsCode(t, memory.dmaMappers.addDmaMapper(wrong(target)), 'ERR_INVALID_ARGUMENT', String(target));
  }
  t.deepEqual(memory.inspect().targets, []);
});

test('an address width that there is not is refused', async (t) => {
  for (const addressWidth of [0, 11, 47, 48, 64, 46.5, NaN, Infinity, -1, wrong<number>('46'), wrong<number>(46n)]) {
    await rejectsCode(t, GuestMemory.create({ addressWidth }), 'ERR_INVALID_ARGUMENT', String(addressWidth));
  }
  const small = await guest(t, { addressWidth: 12, ram: [{ start: 0n, length: PAGE }] });
  const target = new RecordingTarget({ needsVa: true });
  await small.dmaMappers.addDmaMapper(target);
  t.deepEqual(target.heldText(), ['0x0..0x1000 rw ram0']);
  await rejectsCode(t, small.regions.addRegion({ name: 'r', range: pages(1, 1) }), 'ERR_OUT_OF_RANGE');
});

test('host memory can not be made or forged', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const genuine = target.held()[0]?.hostMemory;
  if (genuine === undefined) throw new Error('the target asked for host memory');
  const iommu = new SimulatedIommu();
  const range = pages(0, 1);
  const forged: unknown[] = [
    {},
    { length: PAGE, address: 0x1000n },
    { length: PAGE, read: () => new Uint8Array(1) },
    Object.create(genuine),
    Object.create(Object.getPrototypeOf(genuine) as object),
    null,
    4096n,
    'memory',
  ];
  for (const hostMemory of forged) {
    const request = { range, hostMemory: wrong<HostMemory>(hostMemory), backing: 'private' as const };
    const map = (): void => iommu.mapDma({ ...request, writable: true, kind: 'ram', name: 'forged' });
    throwsCode(t, map, 'ERR_INVALID_ARGUMENT');
  }
  t.deepEqual(iommu.mappings(), []);
});
