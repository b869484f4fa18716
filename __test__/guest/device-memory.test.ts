// The window of a BAR: prepared, placed, moved, taken away.
import test from 'ava';
import { AddressRange, PeerDmaError, SimulatedIommu } from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { at, guest, PAGE, taggedFile } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

test('a BAR that moves is unmapped everywhere before it is mapped anywhere', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'bar-file', 4, 0x50);
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(4) });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: 0n } });
  await bar.addMapping({ range: AddressRange.of(at(2), at(2)), backing: { file, offset: at(2) } });
  await bar.mapToGuest(at(8));
  const log: string[] = [];
  for (const name of ['a', 'b']) {
    const target = new RecordingTarget({ name, needsVa: name === 'b' });
    await memory.dmaMappers.addDmaMapper(target);
    target.judge = ({ op, range }) => void log.push(`${name} ${op} ${range}`);
  }
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);

  await bar.mapToGuest(at(10)); // over a part of where it was
  const firstMap = log.findIndex((call) => call.includes(' map '));
  t.deepEqual(log.slice(0, firstMap).sort(), [
    'a unmap 0x8000..0x9000',
    'a unmap 0xa000..0xc000',
    'b unmap 0x8000..0x9000',
    'b unmap 0xa000..0xc000',
  ]);
  t.deepEqual(log.slice(firstMap).sort(), [
    'a map 0xa000..0xb000',
    'a map 0xc000..0xe000',
    'b map 0xa000..0xb000',
    'b map 0xc000..0xe000',
  ]);
  t.deepEqual(iommu.read(at(10), 1), Uint8Array.of(0x50));
  t.deepEqual(iommu.read(at(13), 1), Uint8Array.of(0x53));
  throwsCode(t, () => iommu.read(at(8), 1), 'ERR_DMA_FAULT');
  throwsCode(t, () => iommu.read(at(11), 1), 'ERR_DMA_FAULT');
});

test('a move that fails at the new address leaves the BAR at the old one in every target', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'bar-file', 4, 0x50);
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(4) });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: 0n } });
  await bar.addMapping({ range: AddressRange.of(at(2), at(2)), backing: 'private' });
  await bar.mapToGuest(at(8));
  memory.write(at(11), Uint8Array.of(0x77));
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);
  const picky = new RecordingTarget({ name: 'picky', needsVa: true });
  await memory.dmaMappers.addDmaMapper(picky, { peerToPeer: 'required' });
  const last = new RecordingTarget({ name: 'last' });
  await memory.dmaMappers.addDmaMapper(last);
  const before = memory.inspect();
  const heldBefore = picky.heldText();

  picky.judge = ({ op, range }) => (op === 'map' && range.start >= at(16) ? new Error('not there') : undefined);
  await rejectsCode(t, bar.mapToGuest(at(16)), 'ERR_MAP_FAILED');
  t.deepEqual(memory.inspect(), before);
  t.deepEqual(picky.heldText(), heldBefore);
  t.deepEqual(last.heldText(), heldBefore);
  t.deepEqual(iommu.read(at(8), 1), Uint8Array.of(0x50));
  t.deepEqual(iommu.read(at(11), 1), Uint8Array.of(0x77));
  throwsCode(t, () => iommu.read(at(16), 1), 'ERR_DMA_FAULT');

  await bar.mapToGuest(at(4));
  t.deepEqual(iommu.read(at(7), 1), Uint8Array.of(0x77));
  t.deepEqual([...picky.breaches, ...last.breaches], []);
});

test('a move onto a reserved IOVA is successful and says that devices can not reach it', async (t) => {
  const memory = await guest(t);
  const iommu = new SimulatedIommu();
  const handle = await memory.dmaMappers.addDmaMapper(iommu);
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  await bar.mapToGuest(0xfee00000n);
  t.like(handle.status()[0], { state: 'failed', code: 'ERR_IOVA_UNREACHABLE', errno: 'EINVAL' });
  await bar.mapToGuest(0xfec00000n);
  t.like(handle.status()[0], { state: 'mapped' });
});

test('two BARs swap their addresses', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 2, 0x50);
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu, { peerToPeer: 'required' });
  const [a, b] = [0, 1].map((n) => memory.newDeviceMemory({ name: `bar${n}`, length: PAGE }));
  if (a === undefined || b === undefined) throw new Error('two were made');
  await a.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: 0n } });
  await b.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: PAGE } });
  await a.mapToGuest(at(1));
  await b.mapToGuest(at(2));
  await a.mapToGuest(at(2)); // both are there now; the older shows
  t.deepEqual(iommu.read(at(2), 1), Uint8Array.of(0x50));
  await b.mapToGuest(at(1));
  t.deepEqual(iommu.read(at(1), 1), Uint8Array.of(0x51));
  t.deepEqual(iommu.read(at(2), 1), Uint8Array.of(0x50));
});

test('contents change while the BAR is placed and while it is not', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 4, 0x50);
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(4) });
  await bar.addMapping({ range: AddressRange.of(0n, at(4)), backing: { file, offset: 0n } });
  t.deepEqual(target.takeCalls(), []);
  await bar.removeMappings(AddressRange.of(at(3), PAGE));
  await bar.mapToGuest(at(4), { writable: false });
  t.deepEqual(target.takeCalls(), ['map 0x4000..0x7000 ro']);
  await bar.removeMappings(AddressRange.of(at(2), PAGE));
  t.deepEqual(target.takeCalls(), ['unmap 0x4000..0x7000', 'map 0x4000..0x6000 ro']);
  await bar.addMapping({ range: AddressRange.of(at(3), PAGE), backing: { file, offset: 0n } });
  t.deepEqual(target.takeCalls(), ['map 0x7000..0x8000 ro']);
  await bar.unmapFromGuest();
  await bar.unmapFromGuest();
  t.deepEqual(target.takeCalls(), ['unmap 0x4000..0x6000', 'unmap 0x7000..0x8000']);
});

test('a closed window is gone for good', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  await bar.mapToGuest(0n);
  await bar.close();
  await bar.close();
  t.deepEqual(target.held(), []);
  t.deepEqual(memory.inspect().regions, []);
  await rejectsCode(t, bar.mapToGuest(0n), 'ERR_REGION_REMOVED');
  await rejectsCode(t, bar.removeMappings(AddressRange.of(0n, PAGE)), 'ERR_REGION_REMOVED');
  await rejectsCode(t, bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' }), 'ERR_REGION_REMOVED');
});

test('a window that is disposed of leaves guest memory', async (t) => {
  const memory = await guest(t);
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar[Symbol.asyncDispose]();
  t.deepEqual(memory.inspect().regions, []);
  t.throws(() => memory.newDeviceMemory({ name: '', length: PAGE }), { instanceOf: PeerDmaError });
});
