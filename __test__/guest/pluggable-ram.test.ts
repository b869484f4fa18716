// RAM whose blocks are plugged and unplugged.
import test, { type ExecutionContext } from 'ava';
import { fstatSync } from 'node:fs';
import { inspect } from 'node:util';
import {
  AddressRange,
  type ErrorCode,
  MemoryFile,
  type PluggableRam,
  type PluggableRamOptions,
} from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { BatchRecordingTarget, RecordingTarget } from '../support/recording-target.ts';

/** RAM of 16 blocks of a page, from page 16 on. */
const RAM: PluggableRamOptions = { start: at(16), length: at(16), blockSize: PAGE };
const text = (ranges: readonly AddressRange[]): string[] => ranges.map(String);
const plugged = (ram: PluggableRam): string[] => text(ram.plugged());

/** Guest memory with an IOMMU, a custom target, and pluggable RAM. */
async function rig(t: ExecutionContext, options: Partial<PluggableRamOptions> = {}) {
  const memory = await guest(t);
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);
  const target = new BatchRecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const ram = await memory.addPluggableRam({ ...RAM, ...options });
  return { memory, iommu, target, ram };
}

for (const kind of [{}, { private: true }] as const) {
  const what = 'private' in kind ? 'private memory' : 'a file';
  test(`a plugged block of ${what} is zero and reached by DMA, an unplugged one is not reached`, async (t) => {
    const { memory, iommu, target, ram } = await rig(t, kind);
    t.throws(() => iommu.write(at(17), Uint8Array.of(1)), { code: 'ERR_DMA_FAULT' });
    t.throws(() => memory.read(at(17), 1), { code: 'ERR_NOT_MAPPED' });
    await ram.plug([pages(17, 2), pages(20, 1)]);
    t.deepEqual(plugged(ram), ['0x11000..0x13000', '0x14000..0x15000']);
    t.deepEqual(
      target.heldText(),
      ['0x11000..0x12000', '0x12000..0x13000', '0x14000..0x15000'].map((r) => `${r} rw ram0`),
    );
    iommu.write(at(17), new Uint8Array(3 * 1024).fill(9));
    iommu.write(at(18), Uint8Array.of(8));
    t.is(memory.read8(at(17)), 9);

    await ram.unplug([pages(17, 1)]);
    t.throws(() => iommu.read(at(17), 1), { code: 'ERR_DMA_FAULT' });
    t.throws(() => memory.read(at(17), 1), { code: 'ERR_NOT_MAPPED' });
    t.deepEqual(iommu.read(at(18), 1), Uint8Array.of(8), 'its neighbour keeps its bytes');
    await ram.plug([pages(17, 1)]);
    t.deepEqual(iommu.read(at(17), 3 * 1024), new Uint8Array(3 * 1024), 'it is zero again');
    await ram.unplug(ram.plugged());
    await ram.plug([pages(18, 1)]);
    t.deepEqual(iommu.read(at(18), 1), Uint8Array.of(0), 'its memory outlives the last plugged block');
    t.deepEqual(target.breaches, []);
  });

  test(`a block of ${what} that a device wrote in a failed plug is zero afterwards`, async (t) => {
    const { memory, ram } = await rig(t, kind);
    let isFull = true;
    await memory.dmaMappers.addDmaMapper({
      name: 'fast device',
      needsVa: true,
      mapDma: ({ hostMemory }) => void (isFull && hostMemory?.write(0n, Uint8Array.of(9))),
      unmapDma: () => {},
    });
    await memory.dmaMappers.addDmaMapper({
      name: 'full',
      mapDma: () => {
        if (isFull) throw new Error('no room');
      },
      unmapDma: () => {},
    });
    await rejectsCode(t, ram.plug([pages(17, 1)]), 'ERR_MAP_FAILED');
    isFull = false;
    await ram.plug([pages(17, 1)]);
    t.is(memory.read8(at(17)), 0);
  });
}

test('plugging and unplugging do not touch the mappings of other blocks', async (t) => {
  const { target, ram } = await rig(t);
  await ram.plug([pages(17, 3)]);
  target.takeCalls();
  await ram.plug([pages(16, 1), pages(20, 1)]);
  t.deepEqual(target.takeCalls(), ['batch of 2', 'map 0x10000..0x11000 rw', 'map 0x14000..0x15000 rw']);
  await ram.unplug([pages(18, 1)]);
  t.deepEqual(target.takeCalls(), ['unmap 0x12000..0x13000']);
});

test('blocks that are plugged together share a mapping, and unplugging one of them cuts it', async (t) => {
  const { target, iommu, ram } = await rig(t, { mappingSize: at(4) });
  await ram.plug([pages(17, 8)]);
  t.deepEqual(
    target.heldText().map((line) => line.split(' ')[0]),
    ['0x11000..0x14000', '0x14000..0x18000', '0x18000..0x19000'],
  );
  iommu.write(at(20), Uint8Array.of(1));
  iommu.write(at(22), Uint8Array.of(2));
  target.takeCalls();
  await ram.unplug([pages(21, 1)]);
  t.deepEqual(target.takeCalls(), [
    'unmap 0x14000..0x18000',
    'batch of 2',
    'map 0x14000..0x15000 rw',
    'map 0x16000..0x18000 rw',
  ]);
  t.deepEqual([iommu.read(at(20), 1)[0], iommu.read(at(22), 1)[0]], [1, 2]);
  t.throws(() => iommu.read(at(21), 1), { code: 'ERR_DMA_FAULT' });
  target.takeCalls();
  await ram.plug([pages(21, 1)]);
  t.deepEqual(target.takeCalls(), ['map 0x15000..0x16000 rw'], 'plugging never cuts or joins a mapping');
});

test('the default of mappingSize keeps the number of mappings below 8,193', async (t) => {
  const memory = await guest(t, { addressWidth: 40 });
  const sizes: [length: bigint, blockSize: bigint, mappingSize: bigint][] = [
    [16n << 30n, 2n << 20n, 2n << 20n],
    [(16n << 30n) + (2n << 20n), 2n << 20n, 4n << 20n],
    [64n << 30n, 2n << 20n, 8n << 20n],
    [1n << 30n, PAGE, 32n * PAGE],
  ];
  for (const [length, blockSize, mappingSize] of sizes) {
    const ram = await memory.addPluggableRam({ start: 1n << 32n, length, blockSize });
    t.is(ram.mappingSize, mappingSize);
    await ram.remove();
  }
});

test('rejects blocks in the wrong state, outside, in part and twice, and changes nothing', async (t) => {
  const { target, ram } = await rig(t);
  await ram.plug([pages(18, 2)]);
  const before = { map: plugged(ram), held: target.heldText() };
  const attempts: [call: 'plug' | 'unplug', ranges: AddressRange[], code: ErrorCode, at?: string][] = [
    ['plug', [pages(16, 1), pages(19, 2)], 'ERR_ALREADY_PLUGGED', '0x13000..0x14000'],
    ['plug', [pages(16, 8)], 'ERR_ALREADY_PLUGGED', '0x12000..0x14000'],
    ['unplug', [pages(18, 1), pages(20, 1)], 'ERR_NOT_PLUGGED', '0x14000..0x15000'],
    ['unplug', [pages(16, 4)], 'ERR_NOT_PLUGGED', '0x10000..0x12000'],
    ['unplug', [pages(18, 4)], 'ERR_NOT_PLUGGED', '0x14000..0x16000'],
    ['plug', [pages(15, 2)], 'ERR_OUT_OF_RANGE'],
    ['plug', [pages(31, 2)], 'ERR_OUT_OF_RANGE'],
    ['unplug', [AddressRange.of(0n, 1n << 40n)], 'ERR_OUT_OF_RANGE'],
    ['plug', [AddressRange.of(at(16) + 1n, PAGE)], 'ERR_UNALIGNED'],
    ['plug', [pages(16, 2), pages(17, 1)], 'ERR_OVERLAP', '0x11000..0x12000'],
    ['unplug', [pages(18, 1), pages(18, 1)], 'ERR_OVERLAP'],
  ];
  for (const [call, ranges, code, where] of attempts) {
    const error = await rejectsCode(t, ram[call](ranges), code, `${call} ${text(ranges)}`);
    if (where !== undefined) t.is(String(error.range), where);
  }
  t.deepEqual({ map: plugged(ram), held: target.heldText() }, before);
  await ram.plug([]);
  await ram.unplug([]);
  t.is(ram.pluggedLength, at(2));
});

test('rejects invalid options of blocks', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 16, 1);
  const attempts: [code: ErrorCode, options: Partial<PluggableRamOptions>][] = [
    ['ERR_INVALID_ARGUMENT', { blockSize: 1024n }],
    ['ERR_INVALID_ARGUMENT', { blockSize: 3n * PAGE }],
    ['ERR_INVALID_ARGUMENT', { blockSize: 0n }],
    ['ERR_INVALID_ARGUMENT', { blockSize: -PAGE }],
    ['ERR_INVALID_ARGUMENT', { mappingSize: 1024n }],
    ['ERR_INVALID_ARGUMENT', { blockSize: at(2), mappingSize: at(3) }],
    ['ERR_UNALIGNED', { start: at(17), blockSize: at(2) }],
    ['ERR_UNALIGNED', { length: at(15), blockSize: at(2) }],
    ['ERR_UNALIGNED', { hugePages: '2M', start: 0n, length: 2n << 20n, blockSize: PAGE }],
    ['ERR_OUT_OF_RANGE', { plugged: [pages(15, 2)] }],
    ['ERR_OUT_OF_RANGE', { file, length: at(17) }],
    ['ERR_OVERLAP', { plugged: [pages(16, 2), pages(16, 1)] }],
  ];
  for (const [code, options] of attempts) {
    await rejectsCode(t, memory.addPluggableRam({ ...RAM, ...options }), code, inspect(options));
  }
  t.deepEqual(memory.inspect().regions, []);
});

test('blocks can be plugged from the beginning, and a target that joins maps the plugged ones only', async (t) => {
  const memory = await guest(t);
  const ram = await memory.addPluggableRam({ ...RAM, plugged: [pages(16, 1), pages(30, 2)] });
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  t.deepEqual(
    target.heldText().map((line) => line.split(' ')[0]),
    ['0x10000..0x11000', '0x1e000..0x1f000', '0x1f000..0x20000'],
  );
  t.is(inspect(ram), 'PluggableRam "ram0" 0x10000..0x20000 (64 KiB) { plugged: 12 KiB, blockSize: 4 KiB, active }');
  t.deepEqual(text(ram.plugged(pages(0, 31))), ['0x10000..0x11000', '0x1e000..0x1f000']);
  t.deepEqual(ram.plugged(pages(40, 4)), []);
  await ram.remove();
  t.deepEqual([target.held(), ram.plugged()], [[], []]);
  await rejectsCode(t, ram.plug([pages(16, 1)]), 'ERR_REGION_REMOVED');
});

test('unplugging returns the pages of a file, and the first plug keeps its bytes', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'mine', 16, 1);
  const ram = await memory.addPluggableRam({ ...RAM, file });
  const pagesOfFile = (): number => (fstatSync(file.fd).blocks * 512) / Number(PAGE);
  t.is(pagesOfFile(), 16);
  await ram.plug([pages(16, 8)]);
  t.is(memory.read8(at(17)), 2);
  await ram.unplug([pages(17, 4)]);
  t.is(pagesOfFile(), 12);
  await ram.plug([pages(17, 4)]);
  t.is(memory.read8(at(17)), 0);
});

test('prefault allocates the pages of blocks when they are plugged', async (t) => {
  const memory = await guest(t);
  const file = MemoryFile.create(at(16));
  t.teardown(() => file.close());
  const ram = await memory.addPluggableRam({ ...RAM, file, prefault: true, plugged: [pages(16, 2)] });
  const pagesOfFile = (): number => (fstatSync(file.fd).blocks * 512) / Number(PAGE);
  t.is(pagesOfFile(), 2);
  await ram.plug([pages(20, 4)]);
  t.is(pagesOfFile(), 6);
});

test('calls at once are made in their order', async (t) => {
  const { memory, ram } = await rig(t);
  const calls = [
    ram.plug([pages(16, 4)]),
    ram.unplug([pages(17, 1)]),
    ram.plug([pages(17, 1)]),
    ram.plug([pages(18, 1)]),
    ram.unplug([pages(16, 4)]),
    memory.close(),
    ram.plug([pages(16, 1)]),
  ];
  const results = await Promise.allSettled(calls);
  t.is(results.map(({ status }) => status[0]).join(''), 'fffrffr');
});
