// Mirrors of config space in BARs: the guest's accesses there reach the config space that it has.
import test from 'ava';
import {
  AssignedDevice,
  type ConfigMirror,
  type ErrorCode,
  PciHostBridge,
  nvidiaConfigMirrors,
  nvidiaP2pClique,
} from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { Fixture } from './support/fixture.ts';
import { BAR_0, MIRROR, MSI, partsOf, placedGpu, simulatedGpu } from './support/gpu.ts';

const mirrors = nvidiaConfigMirrors();
/** The guest address of a config register in the mirror. */
const at = (offset: number): bigint => BAR_0 + MIRROR + BigInt(offset);

function bytesOf(value: number, size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, index) => Math.floor(value / 256 ** index));
}

test('the mirror reads as the guest’s config space, with its BARs, overrides and added capabilities', async (t) => {
  const changes = { mirrors, config: { deviceId: 0x2330 }, capabilities: [nvidiaP2pClique(4)] };
  const { gpu, device } = await placedGpu(t, await Fixture.create(t), changes);
  device.regions[0]?.write(MIRROR, new Uint8Array(0x1000).fill(0xaa));
  for (const length of [1, 2, 4, 8, 64]) {
    for (let offset = 0; offset < 0x300; offset += length) {
      t.deepEqual(gpu.mmioRead(at(offset), length), gpu.ecamRead(offset, length), `${offset}`);
    }
  }
  t.is(Buffer.from(gpu.mmioRead(at(0), 4)).readUInt32LE(), 0x233010de);
  t.is(Buffer.from(gpu.mmioRead(at(0x10), 4)).readUInt32LE(), Number(BAR_0));
  t.is(Buffer.from(gpu.mmioRead(at(0xc8), 4)).readUInt32LE(), 0x50080009);
  t.deepEqual(gpu.mmioRead(at(0x1000), 4), new Uint8Array(4), 'behind the mirror');
  t.deepEqual(gpu.mmioRead(at(-4), 8).subarray(0, 4), new Uint8Array(4), 'across its start');
});

test('a write to the mirror is a config write, applied in turn, and can move the BAR itself', async (t) => {
  const fixture = await Fixture.create(t);
  const { gpu, device } = await placedGpu(t, fixture, { mirrors });
  t.true(fixture.reaches(BAR_0, device, 0));
  const written = new Uint8Array(bytesOf(0xd000_0000, 4));
  const first = gpu.mmioWrite(at(0x10), written);
  written.fill(0); // the write has its own copy
  const second = gpu.configWrite(0x3c, 1, 0x0b);
  t.true(first instanceof Promise);
  t.is(gpu.configRead(0x10, 4), Number(BAR_0), 'not applied yet');
  await Promise.all([first, second]);
  t.is(gpu.configRead(0x10, 4), 0xd000_0000);
  t.false(fixture.reaches(BAR_0, device, 0));
  t.true(fixture.reaches(0xd000_0000n, device, 0));
  const interrupts = 0xd000_0000n + MIRROR + 0x3cn;
  t.is(gpu.mmioRead(interrupts, 1)[0], 0x0b);
  await gpu.mmioWrite(interrupts, bytesOf(0x0c, 1));
  t.is(gpu.configRead(0x3c, 1), 0x0c);
});

test('a write of 8 bytes to the mirror writes two registers, and one across its end the device too', async (t) => {
  const { gpu, device } = await placedGpu(t, await Fixture.create(t), { mirrors });
  await gpu.mmioWrite(at(0x10), new Uint8Array([...bytesOf(0xd000_0000, 4), ...bytesOf(0xc000_0000, 4)]));
  t.deepEqual([gpu.configRead(0x10, 4), gpu.configRead(0x14, 4)], [0xd000_0000, 0xc000_000c]);
  const end = 0xd000_0000n + MIRROR + 0x1000n;
  await gpu.mmioWrite(end - 4n, new Uint8Array(8).fill(0x77));
  t.deepEqual(device.regions[0]?.read(MIRROR + 0x1000n, 4), new Uint8Array(4).fill(0x77));
  t.deepEqual(device.regions[0]?.read(MIRROR + 0xffcn, 4), new Uint8Array(4));
});

test('writes within the MSI header reach the device, which takes them as an acknowledgement', async (t) => {
  const { gpu, device } = await placedGpu(t, await Fixture.create(t), { mirrors });
  const inDevice = () => Buffer.from(device.regions[0]?.read(MIRROR + BigInt(MSI), 4) ?? []).toString('hex');
  t.is(gpu.mmioWrite(at(MSI), Uint8Array.of(0xff)), undefined, 'at once');
  t.is(inDevice(), 'ff000000');
  t.is(gpu.mmioWrite(at(MSI), Uint8Array.of(0xaa, 0xbb)), undefined);
  t.is(inDevice(), 'aabb0000');
  await gpu.mmioWrite(at(MSI), Uint8Array.of(1, 2, 0x80, 0)); // and message control: a config write
  await gpu.mmioWrite(at(MSI + 1), Uint8Array.of(1, 2)); // split into two: the first one reaches the device
  t.is(inDevice(), 'aa010000');
  t.is(gpu.mmioRead(at(MSI), 1)[0], 0x05, 'the identifier of MSI');
  t.is(gpu.configRead(MSI, 2), 0x7805);
  const plain = await placedGpu(t, await Fixture.create(t), { mirrors: [{ bar: 0, offset: MIRROR }] });
  await plain.gpu.mmioWrite(at(MSI), Uint8Array.of(0xff));
  t.deepEqual(plain.device.regions[0]?.read(MIRROR + BigInt(MSI), 1), new Uint8Array(1), 'without the option');
});

test('the pages of a mirror are mapped for nobody, so that no peer reads the device’s config space', async (t) => {
  const fixture = await Fixture.create(t);
  const { gpu, device } = await placedGpu(t, fixture, { mirrors: nvidiaConfigMirrors({ legacyVga: true }) });
  t.deepEqual(partsOf(gpu), {
    mapped: ['0x0..0x1000 (4 KiB)', '0x2000..0x88000 (536 KiB)', '0x89000..0x100000 (476 KiB)'].map(withoutSize),
    trapped: ['0x1000..0x2000', '0x88000..0x89000'].map((range) => `${range}: it mirrors config space`),
  });
  const reached = [0x0n, 0x1000n, 0x1ff0n, 0x2000n, 0x87ff0n, 0x88000n, 0x88ff0n, 0x89000n].filter((offset) =>
    fixture.reaches(BAR_0 + offset, device, 0, offset),
  );
  t.deepEqual(reached, [0x0n, 0x2000n, 0x87ff0n, 0x89000n]);
  // The rest of the page at 0x1000 reaches the device.
  t.is(gpu.mmioWrite(BAR_0 + 0x1100n, Uint8Array.of(0x99)), undefined);
  t.deepEqual(device.regions[0]?.read(0x1100n, 1), Uint8Array.of(0x99));
  t.is(Buffer.from(gpu.mmioRead(BAR_0 + 0x1800n, 2)).readUInt16LE(), 0x10de);
});

const withoutSize = (text: string): string => text.replace(/ \(.*/, '');

test('accesses by a host bridge wait for a write to the mirror that is in flight', async (t) => {
  const fixture = await Fixture.create(t);
  const { gpu, device } = await placedGpu(t, fixture, { mirrors });
  const bridge = new PciHostBridge({ memory: fixture.memory, windows: [] });
  using _onBus = bridge.add('00:01.0', gpu);
  device.regions[0]?.write(0x40n, Uint8Array.of(0x5a));
  const move = bridge.mmioWrite(at(0x10), bytesOf(0xd000_0000, 4));
  const old = bridge.mmioRead(BAR_0 + 0x40n, 1);
  const moved = bridge.mmioRead(0xd000_0040n, 1);
  const back = bridge.mmioWrite(0xd000_0000n + MIRROR + 0x10n, bytesOf(Number(BAR_0), 4));
  const again = bridge.mmioRead(BAR_0 + 0x40n, 1);
  t.true([move, old, moved, back, again].every((one) => one instanceof Promise));
  t.deepEqual((await old)[0], 0xff);
  t.deepEqual((await moved)[0], 0x5a);
  await Promise.all([move, back]);
  t.is(gpu.configRead(0x10, 4), Number(BAR_0));
  t.deepEqual((await again)[0], 0x5a);
  t.false(bridge.mmioRead(BAR_0 + 0x40n, 1) instanceof Promise, 'nothing is in flight');
});

test('a write to the mirror that the host fails rejects as a config write does', async (t) => {
  const fixture = await Fixture.create(t, 'required');
  const { gpu, device } = await placedGpu(t, fixture, { mirrors });
  const isNew = (start: bigint): boolean => start < BAR_0;
  fixture.recorder.judge = ({ op, range }) => (op === 'map' && isNew(range.start) ? new Error('no room') : undefined);
  const failed = gpu.mmioWrite(at(0x10), bytesOf(0xd000_0000, 4));
  await rejectsCode(t, Promise.resolve(failed), 'ERR_MAP_FAILED');
  t.is(gpu.configRead(0x10, 4), Number(BAR_0));
  t.true(fixture.reaches(BAR_0, device, 0));
});

test('rejects a mirror outside of a memory BAR, over another part, or with odd bounds', async (t) => {
  const { memory } = await Fixture.create(t);
  const device = simulatedGpu();
  const wrong: [ConfigMirror[], ErrorCode, RegExp][] = [
    [[{ bar: 2, offset: 0n }], 'ERR_INVALID_ARGUMENT', /BAR 2 of 0000:65:00.0: .* no memory BAR of that number/],
    [[{ bar: 6, offset: 0n }], 'ERR_INVALID_ARGUMENT', /no memory BAR/],
    [
      [{ bar: 0, offset: 0xf_f800n }],
      'ERR_OUT_OF_RANGE',
      /0x1000 bytes at 0xff800 pass the end of the BAR at 0x100000/,
    ],
    [[{ bar: 0, offset: 0n, length: 0x1008n }], 'ERR_OUT_OF_RANGE', /config space has 4096 bytes/],
    [[{ bar: 0, offset: 0n, length: 0n }], 'ERR_EMPTY_RANGE', /Pass 1 byte or more/],
    [[{ bar: 0, offset: 4n, length: 8n }], 'ERR_UNALIGNED', /multiples of 8/],
    [[{ bar: 0, offset: 0n, length: 4n }], 'ERR_UNALIGNED', /multiples of 8/],
    [[...mirrors, { bar: 0, offset: MIRROR + 0xf00n }], 'ERR_OVERLAP', /is emulated already: it mirrors config space/],
    [[{ bar: 0, offset: 0n, msiAcknowledge: 1 as never }], 'ERR_INVALID_ARGUMENT', /true or false/],
  ];
  for (const [given, code, pattern] of wrong) {
    const error = await rejectsCode(
      t,
      AssignedDevice.create({ device, memory, mirrors: given }),
      code,
      String(pattern),
    );
    t.regex(error.message, pattern);
  }
  throwsCode(t, () => nvidiaConfigMirrors({ legacyVga: 1 as never }), 'ERR_INVALID_ARGUMENT');
});
