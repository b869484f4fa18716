// The end of guest memory.
import test from 'ava';
import { readFileSync } from 'node:fs';
import { AddressRange, GuestMemory } from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

test('close unmaps everything from every target while the memory is still there', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(2) }] });
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  await bar.mapToGuest(at(4));
  const targets = [
    new RecordingTarget({ name: 'plain', async: true }),
    new RecordingTarget({ name: 'mapper', needsVa: true }),
  ];
  for (const target of targets) await memory.dmaMappers.addDmaMapper(target);
  for (const target of targets) target.takeCalls();
  await memory.close();
  for (const target of targets) {
    t.deepEqual(target.takeCalls().sort(), ['unmap 0x0..0x2000', 'unmap 0x4000..0x5000']);
    t.deepEqual(target.breaches, []); // unmapDma has read from its host memory
  }
  t.deepEqual(memory.inspect(), { addressWidth: 32, regions: [], flat: [], targets: [], quarantine: [] });
});

test('after close every change fails with ERR_CLOSED', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 2) });
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  const handle = await memory.dmaMappers.addDmaMapper(new RecordingTarget());
  await memory.close();
  const changes: Record<string, () => Promise<unknown>> = {
    addRegion: () => memory.regions.addRegion({ name: 'late', range: pages(8, 1) }),
    addMapping: () => region.addMapping({ range: pages(0, 1), backing: 'private' }),
    removeMappings: () => region.removeMappings(pages(0, 1)),
    'region.map': () => region.mapToGuest(),
    'region.unmap': () => region.unmapFromGuest(),
    'region.remove': () => region.remove(),
    'bar.map': () => bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' }),
    'bar.unmap': () => bar.removeMappings(AddressRange.of(0n, PAGE)),
    mapToGuest: () => bar.mapToGuest(0n),
    unmapFromGuest: () => bar.unmapFromGuest(),
    addDmaMapper: () => memory.dmaMappers.addDmaMapper(new RecordingTarget()),
  };
  for (const [name, change] of Object.entries(changes)) await rejectsCode(t, change(), 'ERR_CLOSED', name);
  throwsCode(t, () => memory.newDeviceMemory({ name: 'late', length: PAGE }), 'ERR_CLOSED');
  await t.notThrowsAsync(handle.remove());
  await t.notThrowsAsync(bar.close());
});

test('reading and writing after close fail with ERR_CLOSED', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  await memory.close();
  throwsCode(t, () => memory.read(0n, 1), 'ERR_CLOSED');
  throwsCode(t, () => memory.write(0n, Uint8Array.of(1)), 'ERR_CLOSED');
});

test('close is idempotent, also when it is not awaited', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const target = new RecordingTarget({ async: true, needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  target.takeCalls();
  await Promise.all([memory.close(), memory.close(), memory[Symbol.asyncDispose]()]);
  await memory.close();
  t.deepEqual(target.calls, ['unmap 0x0..0x1000']);
});

test('files given by the caller stay open, files made here are closed', async (t) => {
  const file = taggedFile(t, 'mine', 1, 0x11);
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: PAGE, file },
      { start: at(4), length: PAGE },
    ],
  });
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  const backing = target.held()[1]?.backing;
  if (backing === undefined || backing === 'private') throw new Error('RAM is a file by default');
  await memory.close();
  t.deepEqual(file.read(0n, 1), Uint8Array.of(0x11));
  throwsCode(t, () => backing.file.length, 'ERR_CLOSED');
});

test('a close that could not unmap keeps the memory and can be called again when the target is closed', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: PAGE },
      { start: at(4), length: PAGE },
    ],
  });
  const stuck = new RecordingTarget({ name: 'stuck', needsVa: true });
  const other = new RecordingTarget({ name: 'other', needsVa: true });
  await memory.dmaMappers.addDmaMapper(stuck);
  await memory.dmaMappers.addDmaMapper(other);
  memory.write(0n, Uint8Array.of(0x5a));
  stuck.judge = ({ op, range }) => (op === 'unmap' && range.start === 0n ? new Error('no') : undefined);
  t.is((await rejectsCode(t, memory.close(), 'ERR_UNMAP_FAILED')).target, 'stuck');
  t.deepEqual(stuck.heldText(), ['0x0..0x1000 rw ram0']);
  t.deepEqual(other.held(), [], 'what can go has gone');
  t.deepEqual(stuck.held()[0]?.hostMemory?.read(0n, 1), Uint8Array.of(0x5a));
  t.is(memory.inspect().quarantine[0]?.target, 'stuck');
  await rejectsCode(t, memory.close(), 'ERR_UNMAP_FAILED');

  await memory.dmaMappers.targetClosed(stuck);
  await memory.close();
  t.deepEqual(memory.inspect().targets, []);
});

test('a guest memory can be disposed of', async (t) => {
  const memory = await GuestMemory.create({ addressWidth: 32 });
  await memory[Symbol.asyncDispose]();
  await rejectsCode(t, memory.regions.addRegion({ name: 'r', range: pages(0, 1) }), 'ERR_CLOSED');
});

test('a closed guest memory maps no file', async (t) => {
  const memory = await guest(t);
  const name = `closing-${process.pid}`;
  const file = taggedFile(t, name, 1, 1);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  await region.mapToGuest();
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ needsVa: true }));
  const isShown = (): boolean => readFileSync('/proc/self/maps', 'utf8').includes(`/memfd:${name}`);
  t.true(isShown());
  await memory.close();
  t.false(isShown());
});
