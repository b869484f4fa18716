// Parts of BARs that the VMM traps: not mapped for anyone, and handled by the device or by methods of the trap.
import test from 'ava';
import { runInNewContext } from 'node:vm';
import { AssignedDevice, type BarTrap, type ErrorCode, nvidiaConfigMirrors } from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { Fixture } from './support/fixture.ts';
import { BAR_0, MIRROR, partsOf, placedGpu, simulatedGpu } from './support/gpu.ts';

test('the pages of a trap are mapped for nobody, and a guest’s accesses reach the device', async (t) => {
  const fixture = await Fixture.create(t);
  const traps = [{ bar: 0, offset: 0x3f_fcn, length: 8n }];
  const { gpu, device } = await placedGpu(t, fixture, { traps });
  t.deepEqual(partsOf(gpu), {
    mapped: ['0x0..0x3000', '0x5000..0x100000'],
    trapped: ['0x3000..0x5000: the VMM traps it'],
  });
  const offsets = [0x2ff0n, 0x3000n, 0x4ff0n, 0x5000n];
  t.deepEqual(
    offsets.filter((offset) => fixture.reaches(BAR_0 + offset, device, 0, offset)),
    [0x2ff0n, 0x5000n],
  );
  for (const offset of [0x3000n, 0x3ffcn, 0x4000n]) {
    t.is(gpu.mmioWrite(BAR_0 + offset, Uint8Array.of(1, 2, 3, 4)), undefined);
    t.deepEqual(device.regions[0]?.read(offset, 4), Uint8Array.of(1, 2, 3, 4));
    t.deepEqual(gpu.mmioRead(BAR_0 + offset, 4), Uint8Array.of(1, 2, 3, 4));
  }
});

test('methods of a trap receive the accesses to its own bytes, with offsets in the BAR', async (t) => {
  const log: string[] = [];
  const trap: BarTrap & { own: number } = {
    bar: 0,
    offset: 0x70n,
    length: 0x10n,
    own: 7,
    read(offset, length) {
      log.push(`read ${length} at ${offset}`);
      return new Uint8Array(length).fill(this.own);
    },
    write(offset, bytes) {
      log.push(`write ${bytes.join(' ')} at ${offset} of ${this.own}`);
    },
  };
  const { gpu, device } = await placedGpu(t, await Fixture.create(t), { traps: [trap] });
  device.regions[0]?.write(0n, new Uint8Array(0x100).fill(0x11));
  t.deepEqual(gpu.mmioRead(BAR_0 + 0x74n, 4), new Uint8Array(4).fill(7));
  t.is(gpu.mmioWrite(BAR_0 + 0x7en, Uint8Array.of(5, 6)), undefined);
  t.deepEqual(gpu.mmioRead(BAR_0 + 0x68n, 8), new Uint8Array(8).fill(0x11));
  t.is(gpu.mmioWrite(BAR_0 + 0x80n, Uint8Array.of(9)), undefined);
  t.deepEqual(log, ['read 4 at 116', 'write 5 6 at 126 of 7']);
  t.is(device.regions[0]?.read(0x80n, 1)[0], 9);
});

test('a trap with one method leaves the other accesses to the device', async (t) => {
  const traps = [
    { bar: 0, offset: 0n, length: 8n, read: (_offset: bigint, length: number) => new Uint8Array(length).fill(3) },
    { bar: 0, offset: 8n, length: 8n, write: () => {} },
  ];
  const { gpu, device } = await placedGpu(t, await Fixture.create(t), { traps });
  for (const offset of [0n, 8n]) await gpu.mmioWrite(BAR_0 + offset, new Uint8Array(8).fill(0x22));
  t.deepEqual(device.regions[0]?.read(0n, 16), Uint8Array.from([...Array(8).fill(0x22), ...Array(8).fill(0)]));
  device.regions[0]?.write(8n, new Uint8Array(8).fill(0x44));
  t.deepEqual(gpu.mmioRead(BAR_0, 16), Uint8Array.from([...Array(8).fill(3), ...Array(8).fill(0x44)]));
});

test('a write that a trap completes later is a promise, and later bytes of the access wait for it', async (t) => {
  const log: string[] = [];
  let release = (): void => {};
  const first = new Promise<void>((resolve) => (release = resolve));
  const write = (offset: bigint): void | Promise<void> => {
    log.push(`${offset}`);
    return offset === 0n ? first : undefined;
  };
  const { gpu, device } = await placedGpu(t, await Fixture.create(t), {
    traps: [{ bar: 0, offset: 0n, length: 16n, write }],
  });
  const pending = gpu.mmioWrite(BAR_0, new Uint8Array(24).fill(1));
  t.true(pending instanceof Promise);
  t.deepEqual(log, ['0']);
  t.is(device.regions[0]?.read(16n, 1)[0], 0);
  release();
  await pending;
  t.deepEqual(log, ['0', '8']);
  t.is(device.regions[0]?.read(16n, 1)[0], 1);
});

test('a promise of another realm, which a trap returns, is awaited', async (t) => {
  const log: string[] = [];
  const write = (offset: bigint): Promise<void> => {
    const other = runInNewContext('Promise') as PromiseConstructor;
    return new other((resolve) =>
      setImmediate(() => {
        log.push(`${offset} is complete`);
        resolve();
      }),
    );
  };
  const { gpu } = await placedGpu(t, await Fixture.create(t), {
    traps: [{ bar: 0, offset: 0n, length: 16n, write }],
  });
  const pending = gpu.mmioWrite(BAR_0, new Uint8Array(16));
  t.true(pending instanceof Promise);
  await pending;
  t.deepEqual(log, ['0 is complete', '8 is complete']);
});

test('an exception of a method, and a result that is not all bytes, reach the VMM', async (t) => {
  const results: Record<string, unknown> = { 0: new Uint8Array(3), 8: 'ab', 16: undefined };
  const read = (offset: bigint): Uint8Array => {
    if (offset === 24n) throw new RangeError('mine');
    return results[String(offset)] as Uint8Array;
  };
  const { gpu } = await placedGpu(t, await Fixture.create(t), { traps: [{ bar: 0, offset: 0n, length: 32n, read }] });
  for (const offset of [0n, 8n, 16n]) {
    const { message } = throwsCode(t, () => gpu.mmioRead(BAR_0 + offset, 4), 'ERR_INVALID_ARGUMENT');
    t.regex(message, /^BAR 0 of 0000:65:00.0: trapping failed: its read at 0x.* Return a Uint8Array of 4 bytes\.$/);
  }
  t.throws(() => gpu.mmioRead(BAR_0 + 24n, 4), { instanceOf: RangeError, message: 'mine' });
});

test('a trap without methods changes no access to a mirror or to other traps, in any order', async (t) => {
  const log: string[] = [];
  const whole = { bar: 0, offset: 0x8_8000n, length: 0x2000n };
  const emulated: BarTrap = {
    bar: 0,
    offset: 0x8_9000n,
    length: 8n,
    read: (offset, length) => {
      log.push(`read at ${offset}`);
      return new Uint8Array(length).fill(7);
    },
    write: (offset) => void log.push(`write at ${offset}`),
  };
  for (const traps of [
    [whole, emulated],
    [emulated, whole],
  ]) {
    const { gpu, device } = await placedGpu(t, await Fixture.create(t), { mirrors: nvidiaConfigMirrors(), traps });
    device.regions[0]?.write(MIRROR, new Uint8Array(0x2000).fill(0xaa));
    t.deepEqual(gpu.mmioRead(BAR_0 + MIRROR, 4), gpu.ecamRead(0, 4));
    await gpu.mmioWrite(BAR_0 + MIRROR + 0x3cn, Uint8Array.of(0x0b));
    t.is(gpu.configRead(0x3c, 1), 0x0b);
    t.deepEqual(device.regions[0]?.read(MIRROR + 0x3cn, 1), Uint8Array.of(0xaa), 'the write reaches no register');
    t.deepEqual(gpu.mmioRead(BAR_0 + emulated.offset, 4), new Uint8Array(4).fill(7));
    t.is(gpu.mmioWrite(BAR_0 + emulated.offset, Uint8Array.of(1)), undefined);
    t.deepEqual(log.splice(0), ['read at 561152', 'write at 561152']);
    t.deepEqual(gpu.mmioRead(BAR_0 + emulated.offset + 8n, 4), new Uint8Array(4).fill(0xaa));
    t.deepEqual(partsOf(gpu).mapped, ['0x0..0x88000', '0x8a000..0x100000']);
  }
});

test('rejects a trap outside of a memory BAR, and one with a method over another part', async (t) => {
  const { memory } = await Fixture.create(t);
  const device = simulatedGpu();
  const read = (_offset: bigint, length: number): Uint8Array => new Uint8Array(length);
  const at = (offset: bigint, length: bigint, methods: object = {}): BarTrap => ({
    bar: 0,
    offset,
    length,
    ...methods,
  });
  const wrong: [BarTrap[], ErrorCode, RegExp][] = [
    [[{ bar: 5, offset: 0n, length: 1n }], 'ERR_INVALID_ARGUMENT', /no memory BAR of that number/],
    [[at(0xf_ffffn, 2n)], 'ERR_OUT_OF_RANGE', /pass the end of the BAR/],
    [[at(0n, 0n)], 'ERR_EMPTY_RANGE', /0 bytes at 0x0/],
    [[at(4n, 8n, { read })], 'ERR_UNALIGNED', /multiples of 8/],
    [[at(0n, 8n, { read: 7 })], 'ERR_INVALID_ARGUMENT', /its read is not a method, but/],
    [[at(0n, 8n, { read }), at(0n, 16n, { write: () => {} })], 'ERR_OVERLAP', /the VMM traps it/],
  ];
  for (const [traps, code, pattern] of wrong) {
    const error = await rejectsCode(t, AssignedDevice.create({ device, memory, traps }), code, String(pattern));
    t.regex(error.message, pattern);
  }
  const mirrors = [{ bar: 0, offset: 0n }];
  const over = AssignedDevice.create({ device, memory, mirrors, traps: [at(0x800n, 8n, { read })] });
  t.regex((await rejectsCode(t, over, 'ERR_OVERLAP')).message, /it mirrors config space/);
  const traps = [at(0n, 1n), at(0x800n, 0x1000n), at(0n, 8n), at(0x1000n, 8n, { read })];
  await using fine = await AssignedDevice.create({ device, memory, mirrors, traps });
  t.is(fine.bdf, device.bdf, 'traps without methods may overlap all others');
});

test('rejects a mirror or trap over the MSI-X table', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const { memory } = fixture;
  const mirrors = [{ bar: 0, offset: 0x1800n }];
  const { message } = await rejectsCode(t, AssignedDevice.create({ device, memory, mirrors }), 'ERR_OVERLAP');
  t.regex(message, /it holds the MSI-X table/);
  const traps = [{ bar: 0, offset: 0x3000n, length: 8n, write: () => {} }];
  await rejectsCode(t, AssignedDevice.create({ device, memory, traps }), 'ERR_OVERLAP');
});
