// The bytes of blocks: plugging and unplugging discard those that nobody keeps, and no others.
import test from 'ava';
import { AddressRange, MemoryFile, type PluggableRamOptions } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

/** RAM of 16 blocks of a page, from page 16 on. */
const RAM: PluggableRamOptions = { start: at(16), length: at(16), blockSize: PAGE };

test('a failed plug keeps the bytes of a file that were never unplugged', async (t) => {
  const memory = await guest(t);
  await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ iovaRanges: [AddressRange.of(0n, at(18))] }));
  const full = new RecordingTarget({ name: 'full' });
  full.judge = ({ op }) => (op === 'map' ? new Error('no room') : undefined);
  await memory.dmaMappers.addDmaMapper(full);
  const file = taggedFile(t, 'mine', 16, 1);
  const ram = await memory.addPluggableRam({ ...RAM, file });
  await rejectsCode(t, ram.plug([pages(20, 2)]), 'ERR_IOVA_UNREACHABLE');
  await rejectsCode(t, ram.plug([pages(16, 2)]), 'ERR_MAP_FAILED');
  t.deepEqual(
    [0, 1, 4, 5].map((page) => file.read(at(page), 1)[0]),
    [1, 2, 5, 6],
  );
  full.judge = () => undefined;
  await ram.plug([pages(16, 2)]);
  await ram.unplug([pages(17, 1)]);
  t.deepEqual(
    [0, 1, 2].map((page) => file.read(at(page), 1)[0]),
    [1, 0, 3],
  );
});

for (const kind of [{}, { private: true }] as const) {
  const what = 'private' in kind ? 'private memory' : 'a file';
  test(`a failed plug does not discard blocks of ${what} that a target failed to unmap`, async (t) => {
    const memory = await guest(t);
    const [stuck, full] = [new RecordingTarget({ needsVa: true }), new RecordingTarget({ name: 'full' })];
    for (const target of [stuck, full]) await memory.dmaMappers.addDmaMapper(target);
    stuck.judge = ({ op, request }) => {
      if (op === 'unmap') return new Error('busy');
      request?.hostMemory?.write(0n, Uint8Array.of(9));
      return undefined;
    };
    full.judge = ({ op }) => (op === 'map' ? new Error('no room') : undefined);
    const ram = await memory.addPluggableRam({ ...RAM, ...kind });
    await rejectsCode(t, ram.plug([pages(17, 1)]), 'ERR_ROLLBACK_FAILED');
    const [held] = stuck.held();
    t.deepEqual(held?.hostMemory?.read(0n, 1), Uint8Array.of(9), 'the target still reaches its bytes');
    full.judge = () => undefined;
    await rejectsCode(t, ram.plug([pages(17, 1)]), 'ERR_RANGE_QUARANTINED');
    stuck.judge = () => undefined;
    await ram.plug([pages(18, 1)]);
    t.deepEqual(held?.hostMemory?.read(0n, 1), Uint8Array.of(9));
    stuck.closeWithMappings();
    await memory.dmaMappers.targetClosed(stuck);
    await ram.plug([pages(17, 1)]);
    t.is(memory.read8(at(17)), 0);
  });
}

test('bytes that another region maps are not discarded', async (t) => {
  const memory = await guest(t);
  const ram = await memory.addPluggableRam({ ...RAM, plugged: [pages(17, 2)] });
  memory.write8(at(17), 7);
  const file = memory.sharing.snapshot()[0]?.file;
  if (file === undefined) return t.fail('RAM is listed');
  const alias = await memory.regions.addRegion({ name: 'alias', range: pages(64, 2) });
  await alias.addMapping({ backing: { file, offset: at(1) } });
  await alias.mapToGuest();
  const error = await rejectsCode(t, ram.unplug([pages(17, 1)]), 'ERR_MEMORY_IN_USE');
  t.regex(error.message, /"alias" at 0x40000\.\.0x42000/);
  t.deepEqual([memory.read8(at(17)), memory.read8(at(64))], [7, 7]);
  await alias.unmapFromGuest();
  await ram.unplug([pages(17, 1)]);
  await alias.mapToGuest();
  memory.write8(at(64), 8);
  await rejectsCode(t, ram.plug([pages(17, 1)]), 'ERR_MEMORY_IN_USE');
  await ram.plug([pages(20, 1)]);
  t.is(memory.read8(at(64)), 8);
  await alias.remove();
  await ram.plug([pages(17, 1)]);
  t.is(memory.read8(at(17)), 0);
});

test('a block is zero, although a process that still maps the file wrote to it while it was unplugged', async (t) => {
  const memory = await guest(t);
  const file = MemoryFile.create(at(16));
  t.teardown(() => file.close());
  const ram = await memory.addPluggableRam({ ...RAM, file, plugged: [pages(17, 1)] });
  await ram.unplug([pages(17, 1)]);
  file.write(at(1), Uint8Array.of(9));
  await ram.plug([pages(17, 1)]);
  t.is(memory.read8(at(17)), 0);
});
