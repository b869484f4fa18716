// What targets are told when mappings and regions come, change and go.
import test from 'ava';
import { AddressRange, SimulatedIommu } from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { type Call, RecordingTarget } from '../support/recording-target.ts';

test('adding to an active region maps, to an inactive one does not', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 4, 1);
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 4) });

  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  t.deepEqual(target.takeCalls(), []);
  await region.mapToGuest();
  t.deepEqual(target.takeCalls(), ['map 0x4000..0x5000 rw']);
  await region.addMapping({ range: pages(2, 2), backing: { file, offset: PAGE }, writable: false });
  t.deepEqual(target.takeCalls(), ['map 0x6000..0x8000 ro']);
});

test('removing a mapping unmaps exactly its range', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 16) });
  await region.mapToGuest();
  for (const first of [0, 4, 6, 12]) await region.addMapping({ range: pages(first, 2), backing: 'private' });
  target.takeCalls();

  await region.removeMappings(pages(2, 9)); // with gaps at both ends
  t.deepEqual(target.takeCalls(), ['unmap 0x4000..0x6000', 'unmap 0x6000..0x8000']);
  await region.remove();
  t.deepEqual(target.takeCalls().sort(), ['unmap 0x0..0x2000', 'unmap 0xc000..0xe000']);
  t.deepEqual(target.breaches, []);
  await rejectsCode(t, region.mapToGuest(), 'ERR_REGION_REMOVED');
  await rejectsCode(t, region.remove(), 'ERR_REGION_REMOVED');
});

test('disabling a region unmaps each of its sub-mappings before its memory leaves this process', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 4, 0x40);
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 8) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  await region.addMapping({ range: pages(4, 2), backing: { file, offset: at(2) } });
  await region.mapToGuest();
  target.takeCalls();

  const seen: (number | undefined)[] = [];
  target.judge = ({ op, request }: Call) => {
    if (op === 'unmap') seen.push(request?.hostMemory?.read(0n, 1)[0]);
    return undefined;
  };
  await region.unmapFromGuest();
  t.deepEqual(target.takeCalls(), ['unmap 0x0..0x1000', 'unmap 0x4000..0x6000']);
  t.deepEqual(seen, [0x40, 0x42]);

  await region.mapToGuest();
  t.deepEqual(target.takeCalls(), ['map 0x0..0x1000 rw', 'map 0x4000..0x6000 rw']);
  t.deepEqual(target.breaches, []);
});

for (const mapping of [true, false]) {
  for (const region of [true, false]) {
    const both = mapping && region;
    test(`a mapping writable=${mapping} in a region writable=${region} is writable=${both} for devices`, async (t) => {
      const memory = await guest(t);
      const file = taggedFile(t, 'file', 1, 5);
      const target = new RecordingTarget({ needsVa: true });
      const iommu = new SimulatedIommu();
      await memory.dmaMappers.addDmaMapper(target);
      await memory.dmaMappers.addDmaMapper(iommu);
      const r = await memory.regions.addRegion({ name: 'r', range: pages(0, 1) });
      await r.addMapping({ range: pages(0, 1), backing: { file, offset: 0n }, writable: mapping });
      await r.mapToGuest({ writable: region });

      t.deepEqual(target.heldText(), [`0x0..0x1000 ${both ? 'rw' : 'ro'} r`]);
      t.is(memory.inspect().flat[0]?.writable, both);
      t.deepEqual(iommu.read(0n, 1), Uint8Array.of(5));
      if (both) iommu.write(0n, Uint8Array.of(9));
      else throwsCode(t, () => iommu.write(0n, Uint8Array.of(9)), 'ERR_DMA_FAULT');
      t.deepEqual(file.read(0n, 1), Uint8Array.of(both ? 9 : 5));
    });
  }
}

test('mapping an active region again changes its writability', async (t) => {
  const memory = await guest(t);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 2) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  await region.addMapping({ range: pages(1, 1), backing: 'private', writable: false });
  await region.mapToGuest();
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  target.takeCalls();
  await region.mapToGuest({ writable: false });
  t.deepEqual(target.takeCalls(), ['unmap 0x0..0x1000', 'map 0x0..0x1000 ro'], 'page 1 was read-only before');
  await region.mapToGuest();
  t.deepEqual(target.takeCalls(), ['unmap 0x0..0x1000', 'map 0x0..0x1000 rw']);
});

test('adding over an existing mapping replaces the covered part', async (t) => {
  const memory = await guest(t);
  const below = taggedFile(t, 'below', 4, 0x10);
  const above = taggedFile(t, 'above', 4, 0x20);
  const target = new RecordingTarget({ needsVa: true });
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(target);
  await memory.dmaMappers.addDmaMapper(iommu);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 8) });
  await region.mapToGuest();
  await region.addMapping({ range: pages(0, 4), backing: { file: below, offset: 0n } });
  target.takeCalls();

  await region.addMapping({ range: pages(1, 2), backing: { file: above, offset: at(2) } });
  t.deepEqual(target.takeCalls(), [
    'unmap 0x0..0x4000',
    'map 0x0..0x1000 rw',
    'map 0x1000..0x3000 rw',
    'map 0x3000..0x4000 rw',
  ]);
  t.deepEqual(
    [0, 1, 2, 3].map((page) => iommu.read(at(page), 1)[0]),
    [0x10, 0x22, 0x23, 0x13],
  );
  t.deepEqual(target.breaches, []);
});

test('removing the middle of a mapping maps the pieces again', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 4, 0x10);
  const target = new RecordingTarget({ needsVa: true });
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(target);
  await memory.dmaMappers.addDmaMapper(iommu);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 4) });
  await region.mapToGuest();
  await region.addMapping({ range: pages(0, 4), backing: { file, offset: 0n } });
  target.takeCalls();

  await region.removeMappings(pages(1, 1));
  t.deepEqual(target.takeCalls(), ['unmap 0x0..0x4000', 'map 0x0..0x1000 rw', 'map 0x2000..0x4000 rw']);
  throwsCode(t, () => iommu.read(at(1), 1), 'ERR_DMA_FAULT');
  t.deepEqual(iommu.read(at(2), 1), Uint8Array.of(0x12));
  t.deepEqual(iommu.read(at(3), 1), Uint8Array.of(0x13));
});

test('private memory keeps its contents when a part of it is removed', async (t) => {
  const memory = await guest(t);
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 4) });
  await region.mapToGuest();
  await region.addMapping({ range: pages(0, 4), backing: 'private' });
  for (let page = 0; page < 4; page++) memory.write(at(page), Uint8Array.of(0x60 + page));
  await region.removeMappings(pages(1, 1));
  for (const page of [0, 2, 3]) {
    t.deepEqual(memory.read(at(page), 1), Uint8Array.of(0x60 + page));
    t.deepEqual(iommu.read(at(page), 1), Uint8Array.of(0x60 + page));
  }
});

test('a neighbour that does not change sees no unmap and no map', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: at(0), length: at(4) },
      { start: at(8), length: at(4) },
    ],
  });
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  target.takeCalls();
  const between = await memory.regions.addRegion({ name: 'between', range: pages(4, 4) });
  await between.addMapping({ range: pages(0, 4), backing: 'private' });
  await between.mapToGuest();
  t.deepEqual(target.takeCalls(), ['map 0x4000..0x8000 rw']);
  await between.addMapping({ range: pages(3, 1), backing: 'private' });
  t.deepEqual(target.takeCalls(), ['unmap 0x4000..0x8000', 'map 0x4000..0x7000 rw', 'map 0x7000..0x8000 rw']);
  await between.unmapFromGuest();
  t.deepEqual(target.takeCalls(), ['unmap 0x4000..0x7000', 'unmap 0x7000..0x8000']);
});

test('changes that change nothing make no calls', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 4, 1);
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 8) });
  await region.unmapFromGuest();
  await region.mapToGuest();
  await region.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: 0n } });
  await bar.mapToGuest(at(12));
  target.takeCalls();

  await region.mapToGuest();
  await region.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  await region.removeMappings(pages(2, 6));
  await bar.mapToGuest(at(12));
  const idle = await memory.regions.addRegion({ name: 'idle', range: pages(0, 8) });
  await idle.addMapping({ range: pages(0, 8), backing: 'private' });
  await idle.removeMappings(pages(0, 8));
  await idle.remove();
  t.deepEqual(target.takeCalls(), []);
});
