/**
 * The list of address spaces in a file that they map, by which a reset of a device finds them.
 */
import test from 'ava';
import { GuestMemory, MemoryFile } from '../../ts/index.ts';
import { fileMemoryOf } from '../../ts/memory/memory-file.ts';

const PAGE = 0x1000n;

test('lists the guest memories that map a file, also while a change adds it', async (t) => {
  const file = MemoryFile.create(4n * PAGE);
  t.teardown(() => file.close());
  const { mappers } = fileMemoryOf(file);
  const [first, second] = [await GuestMemory.create(), await GuestMemory.create()];
  t.is(mappers.size, 0);
  const seen: number[] = [];
  await first.dmaMappers.addDmaMapper({
    name: 'target',
    needsVa: true,
    mapDma: () => void seen.push(mappers.size),
    unmapDma() {},
  });
  const windows = [first, first, second].map((memory) => memory.newDeviceMemory({ name: 'bar', length: PAGE }));
  for (const [index, window] of windows.entries()) {
    await window.addMapping({ backing: { file, offset: BigInt(index) * PAGE } });
    t.is(mappers.size, Math.min(index, 1), 'contents alone are not in the flat map');
    await window.mapToGuest(BigInt(index) * PAGE);
  }
  t.is(mappers.size, 2);
  t.deepEqual(seen, [1, 1]);
  await windows[0]?.unmapFromGuest();
  t.is(mappers.size, 2, 'the first guest memory maps another part of it');
  await windows[1]?.unmapFromGuest();
  t.is(mappers.size, 1);
  await second.close();
  t.is(mappers.size, 0);
  await first.close();
});

test('does not list a guest memory whose change failed', async (t) => {
  const file = MemoryFile.create(PAGE);
  t.teardown(() => file.close());
  const { mappers } = fileMemoryOf(file);
  const memory = await GuestMemory.create();
  const seen: number[] = [];
  const mapDma = (): never => {
    seen.push(mappers.size);
    throw new Error('full');
  };
  const target = { name: 'target', needsVa: true, mapDma, unmapDma() {} };
  await memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'required' });
  const window = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await window.addMapping({ backing: { file, offset: 0n } });
  await t.throwsAsync(window.mapToGuest(0n));
  t.true(seen.length > 0 && seen.every((count) => count === 1), String(seen));
  t.is(mappers.size, 0);
  await memory.close();
});
