// A file that loses its pages under guest memory.
import test from 'ava';
import { ftruncateSync } from 'node:fs';
import { MemoryFile } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, PAGE_BYTES, pages } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';
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

test('a file that was truncated while other targets have it fails a registration with ERR_MEMORY_FAULT', async (t) => {
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

test('a change that shows a truncated file fails and leaves nothing', async (t) => {
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
  await rejectsCode(t, region.map(), 'ERR_MEMORY_FAULT');
  t.deepEqual(target.heldText(), ['0x0..0x1000 rw ram0']);
  t.deepEqual(memory.inspect(), before);
  ftruncateSync(fd, 2 * PAGE_BYTES);
  await region.map();
  t.deepEqual(target.heldText(), ['0x0..0x1000 rw ram0', '0x4000..0x6000 rw r']);
});
