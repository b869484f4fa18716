// Who wins where regions overlap, and what becomes of the one that loses.
import test from 'ava';
import { AddressRange, type GuestMemory, type MemoryKind, type Region, SimulatedIommu } from '../../ts/index.ts';
import { at, guest, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

async function covering(
  memory: GuestMemory,
  options: { name: string; first: number; count: number; priority?: number; kind?: MemoryKind },
): Promise<Region> {
  const { first, count, ...rest } = options;
  const region = await memory.regions.addRegion({ range: pages(first, count), ...rest });
  await region.addMapping({ range: pages(0, count), backing: 'private' });
  await region.mapToGuest();
  return region;
}

function flat(memory: GuestMemory): string[] {
  return memory.inspect().flat.map(({ start, end, region }) => `${start}..${end} ${region}`);
}

test('a higher region hides a lower one and uncovers it again, contents intact', async (t) => {
  const memory = await guest(t);
  const low = await memory.regions.addRegion({ name: 'low', range: pages(0, 4), priority: 1 });
  const file = taggedFile(t, 'file', 2, 0x30);
  await low.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  await low.addMapping({ range: pages(2, 2), backing: 'private' });
  await low.mapToGuest();
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);
  memory.write(at(2), Uint8Array.of(0x32));
  iommu.write(at(3), Uint8Array.of(0x33));
  const shown = (): number[][] => [0, 1, 2, 3].map((page) => [...memory.read(at(page), 1), ...iommu.read(at(page), 1)]);
  const all = [
    [0x30, 0x30],
    [0x31, 0x31],
    [0x32, 0x32],
    [0x33, 0x33],
  ];
  t.deepEqual(shown(), all);

  const high = await memory.regions.addRegion({ name: 'high', range: pages(1, 2), priority: 2 });
  await high.addMapping({ range: pages(0, 2), backing: 'private' });
  for (let round = 0; round < 3; round++) {
    await high.mapToGuest();
    memory.write(at(1), Uint8Array.of(0x70));
    iommu.write(at(2), Uint8Array.of(0x71));
    t.deepEqual(shown(), [all[0], [0x70, 0x70], [0x71, 0x71], all[3]]);
    await high.unmapFromGuest();
    t.deepEqual(shown(), all);
  }
  await high.remove();
  t.deepEqual(shown(), all);
});

test('maps a region that was hidden from the start when the higher one is removed', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const high = await covering(memory, { name: 'high', first: 0, count: 4, priority: 5 });
  await covering(memory, { name: 'low', first: 1, count: 2, priority: 4 });
  t.deepEqual(target.heldText(), ['0x0..0x4000 rw high']);
  await high.remove();
  t.deepEqual(target.heldText(), ['0x1000..0x3000 rw low']);
  t.deepEqual(target.breaches, []);
});

test('of equal priorities the older region wins, whichever was mapped first', async (t) => {
  const memory = await guest(t);
  const older = await covering(memory, { name: 'older', first: 0, count: 2 });
  await covering(memory, { name: 'younger', first: 1, count: 2 });
  t.deepEqual(flat(memory), ['0x0..0x2000 older', '0x2000..0x3000 younger']);
  await older.unmapFromGuest();
  t.deepEqual(flat(memory), ['0x1000..0x2000 younger', '0x2000..0x3000 younger']);
  await older.mapToGuest();
  t.deepEqual(flat(memory), ['0x0..0x2000 older', '0x2000..0x3000 younger']);
});

test('partial overlap is resolved by splitting', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  await covering(memory, { name: 'low', first: 0, count: 8, priority: 0 });
  target.takeCalls();
  const high = await covering(memory, { name: 'high', first: 2, count: 3, priority: 1 });
  t.deepEqual(target.takeCalls(), [
    'unmap 0x0..0x8000',
    'map 0x0..0x2000 rw',
    'map 0x2000..0x5000 rw',
    'map 0x5000..0x8000 rw',
  ]);
  await high.remove();
  // What was cut stays cut: to join it would take it from the devices for a moment.
  t.deepEqual(target.takeCalls(), ['unmap 0x2000..0x5000', 'map 0x2000..0x5000 rw']);
  t.deepEqual(target.heldText(), ['0x0..0x2000 rw low', '0x2000..0x5000 rw low', '0x5000..0x8000 rw low']);
  t.deepEqual(target.breaches, []);
});

test('a region hides lower ones also at addresses without memory', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  await covering(memory, { name: 'low', first: 0, count: 4, priority: 0 });
  const hole = await memory.regions.addRegion({ name: 'hole', range: pages(1, 2), priority: 1 });
  await hole.mapToGuest();
  t.deepEqual(target.heldText(), ['0x0..0x1000 rw low', '0x3000..0x4000 rw low']);
});

test('RAM is above device memory by default, a priority changes that', async (t) => {
  const memory = await guest(t);
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(4) });
  await bar.addMapping({ range: AddressRange.of(0n, at(4)), backing: 'private' });
  await bar.mapToGuest(0n);
  await covering(memory, { name: 'device', first: 0, count: 4, kind: 'device' });
  t.deepEqual(flat(memory), ['0x0..0x4000 bar']);
  await covering(memory, { name: 'ram', first: 1, count: 1, kind: 'ram' });
  t.deepEqual(flat(memory), ['0x0..0x1000 bar', '0x1000..0x2000 ram', '0x2000..0x4000 bar']);
  await covering(memory, { name: 'window', first: 1, count: 1, kind: 'device', priority: 101 });
  t.deepEqual(flat(memory), ['0x0..0x1000 bar', '0x1000..0x2000 window', '0x2000..0x4000 bar']);
});

test('a hidden part that changes makes no calls', async (t) => {
  const memory = await guest(t);
  const low = await covering(memory, { name: 'low', first: 0, count: 4, priority: 0 });
  await covering(memory, { name: 'high', first: 0, count: 2, priority: 1 });
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  target.takeCalls();
  await low.addMapping({ range: pages(0, 1), backing: 'private' });
  await low.removeMappings(pages(1, 1));
  t.deepEqual(target.takeCalls(), []);
});
