// A file that loses its pages while guest memory maps it.
import test from 'ava';
import { ftruncateSync } from 'node:fs';
import { AddressRange, MemoryFile } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, PAGE_BYTES, pages } from '../support/pages.ts';
import { RecordingTarget, RefuseAt } from '../support/recording-target.ts';
import { temporaryFile } from '../support/temporary-file.ts';

test('a registration over a truncated file fails with ERR_MEMORY_FAULT and leaves nothing', async (t) => {
  const fd = temporaryFile(t, 4 * PAGE_BYTES);
  const file = MemoryFile.fromFd(fd);
  t.teardown(() => file.close());
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: PAGE },
      { start: at(8), length: at(4), file },
    ],
  });
  const before = memory.inspect();
  ftruncateSync(fd, PAGE_BYTES);
  const target = new RecordingTarget({ needsVa: true });
  const error = await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_MEMORY_FAULT');
  t.deepEqual(error.range, pages(8, 4));
  t.deepEqual(target.calls, []);
  t.deepEqual(memory.inspect(), before);

  ftruncateSync(fd, 4 * PAGE_BYTES);
  await memory.dmaMappers.addDmaMapper(target);
  t.deepEqual(target.heldText(), ['0x0..0x1000 rw ram0', '0x8000..0xc000 rw ram1']);
});

test('a file truncated while other targets map it fails a registration with ERR_MEMORY_FAULT', async (t) => {
  const fd = temporaryFile(t, 2 * PAGE_BYTES);
  const file = MemoryFile.fromFd(fd);
  t.teardown(() => file.close());
  const memory = await guest(t, { ram: [{ start: 0n, length: at(2), file }] });
  const first = new RecordingTarget({ name: 'first', needsVa: true });
  await memory.dmaMappers.addDmaMapper(first);
  const before = memory.inspect();
  ftruncateSync(fd, PAGE_BYTES);
  const second = new RecordingTarget({ name: 'second', needsVa: true });
  const error = await rejectsCode(t, memory.dmaMappers.addDmaMapper(second), 'ERR_MEMORY_FAULT');
  t.deepEqual(error.range, pages(0, 2));
  t.deepEqual(second.calls, []);
  t.deepEqual(memory.inspect(), before);
});

test('a change that maps a truncated file fails and leaves nothing', async (t) => {
  const fd = temporaryFile(t, 2 * PAGE_BYTES);
  const file = MemoryFile.fromFd(fd);
  t.teardown(() => file.close());
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 2) });
  await region.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const before = memory.inspect();
  ftruncateSync(fd, 0);
  await rejectsCode(t, region.mapToGuest(), 'ERR_MEMORY_FAULT');
  t.deepEqual(target.heldText(), ['0x0..0x1000 rw ram0']);
  t.deepEqual(memory.inspect(), before);
  ftruncateSync(fd, 2 * PAGE_BYTES);
  await region.mapToGuest();
  t.deepEqual(target.heldText(), ['0x0..0x1000 rw ram0', '0x4000..0x6000 rw r']);
});

test('does not unmap truncated memory, which could not be mapped again', async (t) => {
  const fd = temporaryFile(t, 2 * PAGE_BYTES);
  const file = MemoryFile.fromFd(fd);
  t.teardown(() => file.close());
  const memory = await guest(t);
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(2) });
  await bar.addMapping({ range: AddressRange.of(0n, at(2)), backing: { file, offset: 0n } });
  await bar.mapToGuest(at(4));
  const target = new RecordingTarget({ name: 'target', needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const before = memory.inspect();
  target.takeCalls();
  ftruncateSync(fd, PAGE_BYTES);
  const error = await rejectsCode(t, bar.mapToGuest(at(8)), 'ERR_MEMORY_FAULT');
  t.is(error.target, 'target');
  t.deepEqual(error.range, pages(8, 2));
  t.deepEqual(target.takeCalls(), []);
  t.deepEqual(memory.inspect(), before);
  ftruncateSync(fd, 2 * PAGE_BYTES);
  await bar.mapToGuest(at(8));
  t.deepEqual(target.heldText(), ['0x8000..0xa000 rw bar']);
});

test('a target that cannot join over a truncated file affects none that needs no host memory', async (t) => {
  const fd = temporaryFile(t, 2 * PAGE_BYTES);
  const file = MemoryFile.fromFd(fd);
  t.teardown(() => file.close());
  const memory = await guest(t);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 2) });
  await region.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  await region.mapToGuest();
  const rom = await memory.regions.addRegion({ name: 'rom', range: pages(4, 2), priority: 200 });
  await rom.addMapping({ range: pages(0, 2), backing: 'private' });
  const plain = new RecordingTarget({ name: 'plain' });
  await memory.dmaMappers.addDmaMapper(plain);
  ftruncateSync(fd, 0);
  const joining = new RecordingTarget({ name: 'joining', needsVa: true });
  await rejectsCode(t, memory.dmaMappers.addDmaMapper(joining), 'ERR_MEMORY_FAULT');

  await region.mapToGuest();
  plain.judge = new RefuseAt('map', 0).judge;
  await rejectsCode(t, rom.mapToGuest(), 'ERR_MAP_FAILED', 'and the rollback succeeded');
  t.deepEqual(plain.heldText(), ['0x4000..0x6000 rw r']);
});

test('after the last target that needs host memory leaves, a truncated file blocks nothing', async (t) => {
  const fd = temporaryFile(t, 2 * PAGE_BYTES);
  const file = MemoryFile.fromFd(fd);
  t.teardown(() => file.close());
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const leaving = await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'leaving', needsVa: true }));
  await leaving.remove();
  const plain = new RecordingTarget({ name: 'plain' });
  await memory.dmaMappers.addDmaMapper(plain);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 2) });
  await region.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  ftruncateSync(fd, 0);
  await region.mapToGuest();
  t.deepEqual(plain.heldText(), ['0x0..0x1000 rw ram0', '0x4000..0x6000 rw r']);
  ftruncateSync(fd, 2 * PAGE_BYTES);
  const late = new RecordingTarget({ name: 'late', needsVa: true });
  await memory.dmaMappers.addDmaMapper(late);
  t.deepEqual(late.heldText(), plain.heldText(), 'memory that was not mapped meanwhile is mapped now');
});

test('a truncated file can replace memory when no target needs host memory', async (t) => {
  const fd = temporaryFile(t, 2 * PAGE_BYTES);
  const file = MemoryFile.fromFd(fd);
  t.teardown(() => file.close());
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: PAGE },
      { start: at(4), length: at(2) },
    ],
  });
  const over = await memory.regions.addRegion({ name: 'over', range: pages(4, 2), priority: 200 });
  await over.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  const leaving = new RecordingTarget({ name: 'leaving', needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(leaving);
  leaving.judge = ({ op, range }) => (op === 'unmap' && range.start === 0n ? new Error('stuck') : undefined);
  await rejectsCode(t, handle.remove(), 'ERR_UNMAP_FAILED');
  const plain = new RecordingTarget({ name: 'plain' });
  await memory.dmaMappers.addDmaMapper(plain);
  ftruncateSync(fd, 0);
  await over.mapToGuest();
  t.deepEqual(plain.heldText(), ['0x0..0x1000 rw ram0', '0x4000..0x6000 rw over']);
  await memory.dmaMappers.targetClosed(leaving);
});
