/**
 * What is in use stays, whoever lets go of it.
 */
import { readlinkSync } from 'node:fs';
import test from 'ava';
import { GuestMemory, MemoryFile, SimulatedIommu } from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { PAGE, at, guest, pages } from '../support/pages.ts';
import { RecordingTarget, RefuseAt } from '../support/recording-target.ts';

test('keeps a closed file open for the regions that map it', async (t) => {
  const memory = await guest(t);
  const file = MemoryFile.create(at(2), { name: 'early' });
  file.write(0n, Uint8Array.of(0x77));
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 2) });
  await region.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  await region.mapToGuest();
  const early = new SimulatedIommu({ name: 'early' });
  await memory.dmaMappers.addDmaMapper(early);
  file.close();
  throwsCode(t, () => file.length, 'ERR_CLOSED');

  t.is(memory.read(at(4), 1)[0], 0x77);
  const late = new SimulatedIommu({ name: 'late' });
  await memory.dmaMappers.addDmaMapper(late);
  await region.mapToGuest({ writable: false });
  for (const iommu of [early, late]) t.is(iommu.read(at(4), 1)[0], 0x77);
  await region.removeMappings(pages(0, 1));
  memory.write(at(5), Uint8Array.of(0x78));
  t.is(late.read(at(5), 1)[0], 0x78);
  const other = await memory.regions.addRegion({ name: 'other', range: pages(8, 2) });
  await rejectsCode(t, other.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } }), 'ERR_CLOSED');
});

test('the status of a handle reports failed unmaps after a failed close', async (t) => {
  const memory = await GuestMemory.create({ addressWidth: 32, ram: [{ start: 0n, length: PAGE }] });
  const stuck = new RecordingTarget({ name: 'stuck', needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(stuck);
  stuck.judge = ({ op }) => (op === 'unmap' ? new Error('no') : undefined);
  await rejectsCode(t, memory.close(), 'ERR_UNMAP_FAILED');
  await rejectsCode(t, handle.remove(), 'ERR_UNMAP_FAILED');
  t.is(handle.status()[0]?.state, 'quarantined');
  await memory.dmaMappers.targetClosed(stuck);
  await handle.remove();
  await memory.close();
});

test('a target that throws an unprintable value leaves nothing behind', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: PAGE },
      { start: at(4), length: PAGE },
    ],
  });
  const target = new RecordingTarget({ needsVa: true });
  target.judge = ({ range }) => (range.start > 0n ? Object.create(null) : undefined);
  await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_MAP_FAILED');
  t.deepEqual(target.held(), []);
  t.deepEqual(memory.inspect().targets, []);
});

test('RAM is not ordered twice for one address', async (t) => {
  const ram = [
    { start: at(4), length: at(4) },
    { start: 0n, length: at(5) },
  ];
  const error = await rejectsCode(t, GuestMemory.create({ addressWidth: 32, ram }), 'ERR_OVERLAP');
  t.is(String(error.range), '0x4000..0x8000');
});

test('releases a closed file with the last piece that maps it', async (t) => {
  const memory = await guest(t);
  const file = MemoryFile.create(at(3), { name: 'passing' });
  const { fd } = file;
  const isOpen = (): boolean => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes('passing');
    } catch {
      return false;
    }
  };
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 3) });
  await region.addMapping({ range: pages(0, 3), backing: { file, offset: 0n } });
  await region.mapToGuest();
  file.close();
  for (const page of [1, 0]) {
    await region.removeMappings(pages(page, 1)); // the first cuts it into two
    t.true(isOpen());
  }
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  target.judge = new RefuseAt('unmap', 0).judge;
  await rejectsCode(t, region.removeMappings(pages(2, 1)), 'ERR_UNMAP_FAILED');
  t.true(isOpen(), 'a change that failed takes nothing');
  target.loseAll();
  await memory.dmaMappers.targetClosed(target);
  await region.removeMappings(pages(2, 1));
  t.false(isOpen());
});
