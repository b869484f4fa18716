// RAM that is added to existing guest memory, and removed.
import test from 'ava';
import { fstatSync, readFileSync, readdirSync } from 'node:fs';
import { inspect } from 'node:util';
import { AddressRange, GuestMemory, MemoryFile, type RamOptions } from '../../ts/index.ts';
import { DmaBuffer } from '../../ts/driver.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { BatchRecordingTarget, RecordingTarget } from '../support/recording-target.ts';

const openFiles = (): number => readdirSync('/proc/self/fd').length;

test.serial('targets map RAM that is added, and unmap it when it is removed', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const targets = [new RecordingTarget({ needsVa: true }), new BatchRecordingTarget({ name: 'batch' })];
  for (const target of targets) await memory.dmaMappers.addDmaMapper(target);
  const ram = await memory.addRam({ start: at(16), length: at(2) });
  memory.write(at(17), Uint8Array.of(7));
  for (const target of targets) t.deepEqual(target.heldText(), ['0x0..0x1000 rw ram0', '0x10000..0x12000 rw ram1']);
  t.is(inspect(ram), 'Ram "ram1" 0x10000..0x12000 (8 KiB) { active }');
  await ram.remove();
  for (const target of targets) {
    t.deepEqual(target.heldText(), ['0x0..0x1000 rw ram0']);
    t.deepEqual(target.breaches, []);
  }
  t.is(inspect(ram), 'Ram "ram1" 0x10000..0x12000 (8 KiB) { removed }');
  const again = await memory.addRam({ start: at(16), length: at(2), name: 'dimm' });
  t.is(again.name, 'dimm');
  t.deepEqual(memory.read(at(17), 1), Uint8Array.of(0), 'it is new memory');
});

test.serial('added RAM has the options of RAM at creation', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'mine', 4, 0x20);
  await memory.addRam({ start: at(4), length: at(2), file });
  file.close();
  await memory.addRam({ start: at(8), length: PAGE, private: true });
  await memory.addRam({ start: at(12), length: PAGE, hugePages: 'transparent' });
  t.deepEqual(
    memory.inspect().flat.map(({ start, region, backing }) => `${start} ${region} ${backing}`),
    ['0x4000 ram0 mine+0x0', '0x8000 ram1 private', '0xc000 ram2 ram2+0x0'],
  );
  t.deepEqual(memory.read(at(5), 1), Uint8Array.of(0x21));
});

test.serial('rejects RAM that overlaps other RAM or a DMA buffer, is invalid or beyond the width', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(4) }] });
  await memory.addRam({ start: at(8), length: at(4) });
  const buffer = await DmaBuffer.allocate(memory, PAGE);
  const before = openFiles();
  const attempts: [start: bigint, length: bigint, code: string, more?: Partial<RamOptions>][] = [
    [at(3), at(2), 'ERR_OVERLAP'],
    [at(7), at(2), 'ERR_OVERLAP'],
    [buffer.iova, PAGE, 'ERR_OVERLAP'],
    [1n << 32n, PAGE, 'ERR_OUT_OF_RANGE'],
    [1n, PAGE, 'ERR_UNALIGNED'],
    [at(16), 0n, 'ERR_EMPTY_RANGE'],
    [at(16), PAGE, 'ERR_INVALID_ARGUMENT', { name: '' }],
    [at(16), PAGE, 'ERR_INVALID_ARGUMENT', { private: true, hugePages: '2M' }],
  ];
  for (const [start, length, code, more] of attempts) {
    await rejectsCode(t, memory.addRam({ start, length, ...more }), code as never, `${start}`);
  }
  t.is(openFiles(), before);
  t.is(memory.inspect().regions.length, 3);
});

test.serial('RAM can be added where removed RAM was, and two calls at once cannot overlap', async (t) => {
  const memory = await guest(t);
  const ram = await memory.addRam({ start: 0n, length: at(4) });
  await ram.remove();
  const both = [0, 2].map(async (page) => memory.addRam({ start: at(page), length: at(4) }));
  const results = await Promise.allSettled(both);
  t.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected'],
  );
});

for (const kind of [{}, { private: true }, { prefault: true }, { private: true, prefault: true }]) {
  test.serial(
    `nothing remains of RAM that a target cannot map (${Object.keys(kind).join(', ') || 'a file'})`,
    async (t) => {
      const memory = await guest(t);
      const [first, second] = [new RecordingTarget({ needsVa: true }), new RecordingTarget({ name: 'second' })];
      for (const target of [first, second]) await memory.dmaMappers.addDmaMapper(target);
      second.judge = ({ op }) => (op === 'map' ? new Error('no room') : undefined);
      const before = { files: openFiles(), state: memory.inspect() };
      await rejectsCode(t, memory.addRam({ start: 0n, length: at(4), ...kind }), 'ERR_MAP_FAILED');
      t.deepEqual({ files: openFiles(), state: memory.inspect() }, before);
      t.deepEqual(first.held(), []);
      second.judge = () => undefined;
      await memory.addRam({ start: 0n, length: at(4), ...kind });
      t.is(first.held().length, 1);
    },
  );
}

test.serial('an abort before the turn adds nothing, and a later one removes the RAM again', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ async: true });
  await memory.dmaMappers.addDmaMapper(target);
  await t.throwsAsync(memory.addRam({ start: 0n, length: PAGE }, { signal: AbortSignal.abort(new Error('early')) }), {
    message: 'early',
  });
  const late = new AbortController();
  target.judge = ({ op }) => void (op === 'map' && late.abort(new Error('late')));
  await t.throwsAsync(memory.addRam({ start: 0n, length: PAGE }, { signal: late.signal }), { message: 'late' });
  t.deepEqual(target.takeCalls(), ['map 0x0..0x1000 rw', 'unmap 0x0..0x1000']);
  t.deepEqual(memory.inspect().regions, []);
});

test.serial('RAM that a target fails to unmap stays, and its memory is kept until the target is closed', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const ram = await memory.addRam({ start: 0n, length: PAGE });
  memory.write(0n, Uint8Array.of(7));
  target.judge = ({ op }) => (op === 'unmap' ? new Error('busy') : undefined);
  await rejectsCode(t, ram.remove(), 'ERR_UNMAP_FAILED');
  t.deepEqual(memory.read(0n, 1), Uint8Array.of(7));
  await rejectsCode(t, ram.remove(), 'ERR_RANGE_QUARANTINED');
  target.closeWithMappings();
  await memory.dmaMappers.targetClosed(target);
  await ram.remove();
  t.deepEqual(memory.inspect().regions, []);
});

test.serial('the pages of removed RAM return to the system', async (t) => {
  const memory = await guest(t);
  const file = MemoryFile.create(8n << 20n, { name: 'counted' });
  const ram = await memory.addRam({ start: 0n, length: 8n << 20n, file, prefault: true });
  const { fd } = file;
  const shared = (): boolean => readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8').includes('pos:');
  t.true(shared());
  file.close();
  await ram.remove();
  t.throws(shared, { code: 'ENOENT' });
});

test.serial('closing guest memory closes the files of RAM, also of RAM without a plugged block', async (t) => {
  const before = openFiles();
  const memory = await GuestMemory.create({ addressWidth: 32, ram: [{ start: 0n, length: PAGE }] });
  await memory.addRam({ start: at(4), length: PAGE });
  await memory.addPluggableRam({ start: at(8), length: at(4), blockSize: PAGE });
  await memory.addPluggableRam({ start: at(16), length: at(4), blockSize: PAGE, plugged: [pages(17, 2)] });
  t.is(openFiles() - before, 4);
  await memory.close();
  t.is(openFiles(), before);
});

test.serial('DMA reaches added RAM', async (t) => {
  const memory = await guest(t);
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);
  const ram = await memory.addRam({ start: at(4), length: PAGE });
  iommu.write(at(4), Uint8Array.of(1, 2, 3));
  t.deepEqual(memory.read(at(4), 3), Uint8Array.of(1, 2, 3));
  t.is(String(ram.range), String(AddressRange.of(at(4), PAGE)));
  await ram.remove();
  t.throws(() => iommu.read(at(4), 1), { code: 'ERR_DMA_FAULT' });
  t.is(String(pages(4, 1)), String(ram.range));
});

test.serial(
  'the file of RAM stays open while a target that failed to unmap it in a failed addRam can reach it',
  async (t) => {
    const memory = await guest(t);
    const [first, second] = [new RecordingTarget({ name: 'first' }), new RecordingTarget({ name: 'second' })];
    for (const target of [first, second]) await memory.dmaMappers.addDmaMapper(target);
    first.judge = ({ op }) => (op === 'unmap' ? new Error('busy') : undefined);
    second.judge = ({ op }) => (op === 'map' ? new Error('no room') : undefined);
    const before = openFiles();
    await rejectsCode(t, memory.addRam({ start: 0n, length: PAGE }), 'ERR_ROLLBACK_FAILED');
    const [held] = first.held();
    const region = await memory.regions.addRegion({ name: 'active', range: pages(4, 1) });
    await region.mapToGuest();
    const mine = MemoryFile.create(PAGE);
    await rejectsCode(t, region.addMapping({ backing: { file: mine, offset: 0n } }), 'ERR_ROLLBACK_FAILED');
    mine.close();
    t.is(openFiles() - before, 2);
    if (held?.backing === 'private' || held === undefined) return t.fail('the memory is a file');
    t.deepEqual(held.backing.file.read(0n, 1), Uint8Array.of(0));
    first.closeWithMappings();
    await memory.dmaMappers.targetClosed(first);
    t.is(openFiles(), before);
  },
);

test.serial('RAM that is rejected for its addresses takes no pages', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ iovaRanges: [AddressRange.of(0n, at(16))] }));
  const file = MemoryFile.create(at(4));
  t.teardown(() => file.close());
  for (const [page, code] of [
    [0, 'ERR_OVERLAP'],
    [32, 'ERR_IOVA_UNREACHABLE'],
  ] as const) {
    await rejectsCode(t, memory.addRam({ start: at(page), length: at(4), file, prefault: true }), code);
    t.is(fstatSync(file.fd).blocks, 0, code);
  }
});
