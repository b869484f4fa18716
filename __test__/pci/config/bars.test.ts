// BARs and the ROM of an assigned device: their kinds, sizing, placement and decoding.
import test from 'ava';
import type { Bar } from '../../../ts/pci/config/config-space.ts';
import { throwsCode } from '../../support/errors.ts';
import { PlainDevice, changed, withRegions } from './plain-device.ts';

const plain = (bars: readonly Bar[]): unknown[] =>
  bars.map(({ index, kind, prefetchable, length }) => [index, kind, prefetchable, length]);

test('finds the BARs in the registers, with the lengths of their regions', (t) => {
  t.deepEqual(plain(new PlainDevice('edu').config.bars), [[0, 'memory32', false, 0x100000n]]);
  t.deepEqual(plain(new PlainDevice('ivshmem').config.bars), [
    [0, 'memory32', false, 0x100n],
    [2, 'memory64', true, 0x1000000n],
  ]);
  t.deepEqual(plain(new PlainDevice('nvme').config.bars), [
    [0, 'memory64', false, 0x4000n],
    [2, 'memory64', true, 0x400000n],
  ]);
  t.deepEqual(plain(new PlainDevice('igb').config.bars), [
    [0, 'memory32', false, 0x20000n],
    [1, 'memory32', false, 0x20000n],
    [3, 'memory64', false, 0x4000n],
  ]);
  t.deepEqual(plain(new PlainDevice('written-gpu').config.bars), [
    [0, 'memory32', false, 0x1000000n],
    [1, 'memory64', true, 0x800000000n],
    [3, 'memory64', true, 0x2000000n],
    [6, 'rom', false, 0x80000n],
  ]);
});

test('rounds register lengths up to a power of two, at least 16 bytes, or 2 KiB for a ROM', (t) => {
  const { config } = new PlainDevice('written-nic');
  t.deepEqual(plain(config.bars), [
    [0, 'memory64', true, 0x800000n],
    [2, 'memory32', false, 0x8000n],
    [3, 'memory32', true, 0x10n],
    [4, 'memory32', false, 0x10000n],
  ]);
  const small = new PlainDevice(withRegions('written-gpu', { 6: 1n }));
  t.is(small.config.bars.at(-1)?.length, 0x800n);
});

test('reads the size and the type bits after a write of all ones', (t) => {
  const edu = new PlainDevice('edu');
  t.is(edu.size(0x10), 0xfff00000);
  const gpu = new PlainDevice('written-gpu');
  t.is(gpu.size(0x10), 0xff000000);
  t.deepEqual([gpu.size(0x14), gpu.size(0x18)], [0x0000000c, 0xfffffff8]); // 32 GiB
  t.deepEqual([gpu.size(0x1c), gpu.size(0x20)], [0xfe00000c, 0xffffffff]); // 32 MiB
  t.is(gpu.size(0x30), 0xfff80001);
  const nic = new PlainDevice('written-nic');
  t.deepEqual([nic.size(0x18), nic.size(0x1c)], [0xffff8000, 0xfffffff8]); // of 0x6000 and 8 bytes
  t.is(nic.size(0x20), 0xffff0000);
});

test('sizes byte by byte and by words', (t) => {
  for (const name of ['edu', 'written-gpu', 'written-nic'] as const) {
    for (const register of [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30]) {
      const device = new PlainDevice(name);
      const whole = device.size(register);
      t.is(device.sizeByBytes(register), whole, `${name} ${register}`);
      device.write(register, 2, 0xffff);
      device.write(register + 2, 2, 0xffff);
      t.is(device.read(register, 2) + 0x10000 * device.read(register + 2, 2), whole, `${name} ${register}`);
    }
  }
});

test('reads 0 from ROM bits between the enable bit and the address', (t) => {
  const gpu = new PlainDevice('written-gpu');
  gpu.write(0x30, 4, 0xffffffff);
  t.is(gpu.read(0x30, 4), 0xfff80001);
  gpu.write(0x30, 4, 0xfffff800); // what Linux writes: the enable bit stays off
  t.is(gpu.read(0x30, 4), 0xfff80000);
});

test('has no BAR addresses after power-on', (t) => {
  const gpu = new PlainDevice('written-gpu');
  t.deepEqual(
    [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30].map((register) => gpu.read(register, 4)),
    [0, 0xc, 0, 0xc, 0, 0, 0],
  );
  t.is(gpu.read(0x04, 2) & 2, 0);
});

test('reads 0 from I/O BARs, BARs without a region and an absent ROM, and drops writes', (t) => {
  const cases: [PlainDevice, number[]][] = [
    [new PlainDevice('edu'), [0x14, 0x18, 0x1c, 0x20, 0x24, 0x30]],
    [new PlainDevice('igb'), [0x18, 0x24, 0x30]],
    [new PlainDevice(withRegions('written-gpu', { 1: undefined })), [0x14, 0x18, 0x24]],
    [new PlainDevice(withRegions('written-gpu', { 1: 0n })), [0x14, 0x18, 0x24]],
  ];
  for (const [device, registers] of cases) {
    for (const register of registers) {
      device.write(register, 4, 0xffffffff);
      t.is(device.read(register, 4), 0, `register ${register}`);
      t.deepEqual(device.told, [], `register ${register}`);
    }
  }
});

test('treats the obsolete type below 1 MiB as 32 bits', (t) => {
  const device = new PlainDevice('written-conventional');
  t.deepEqual(plain(device.config.bars).at(-1), [4, 'memory32', false, 0x200n]);
  t.is(device.size(0x20), 0xfffffe00);
});

test('treats an upper half as an address, whatever its type bits', (t) => {
  for (const upper of [0x01, 0x04, 0x06]) {
    const device = new PlainDevice(changed('written-gpu', { 0x18: [upper] }));
    t.deepEqual(
      device.config.bars.map(({ index }) => index),
      [0, 1, 3, 6],
    );
    t.deepEqual([device.size(0x14), device.size(0x18)], [0x0000000c, 0xfffffff8]);
  }
});

test('never forwards BAR registers to the device', (t) => {
  const gpu = new PlainDevice('written-gpu');
  const before = gpu.bytes.slice(0x10, 0x34);
  for (const register of [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30]) {
    gpu.write(register, 4, 0x12345678);
    t.deepEqual(gpu.told, []);
  }
  t.deepEqual(gpu.bytes.slice(0x10, 0x34), before);
});

test('decodes a BAR at its address while memory decode is on', (t) => {
  const device = new PlainDevice('ivshmem');
  device.write(0x10, 4, 0xe0000100);
  device.write(0x18, 4, 0x10000000);
  device.write(0x1c, 4, 0x20);
  t.deepEqual(device.decoded, {});
  device.decodeOn();
  t.deepEqual(device.decoded, { 0: 0xe0000100n, 2: 0x2010000000n });
  device.write(0x1a, 2, 0x3000);
  t.deepEqual(device.decoded, { 0: 0xe0000100n, 2: 0x2030000000n });
  device.write(0x1c, 1, 0x21);
  t.deepEqual(device.decoded, { 0: 0xe0000100n, 2: 0x2130000000n });
  device.decodeOff();
  t.deepEqual(device.decoded, {});
});

test('drops address bits below the size', (t) => {
  const device = new PlainDevice('edu');
  device.write(0x10, 4, 0xe01fffff);
  t.is(device.read(0x10, 4), 0xe0100000);
  device.decodeOn();
  t.deepEqual(device.decoded, { 0: 0xe0100000n });
});

test('does not decode a BAR at 0, or while it is sized', (t) => {
  const device = new PlainDevice('ivshmem');
  device.decodeOn();
  t.deepEqual(device.decoded, {});
  device.write(0x10, 4, 0xffffffff);
  device.write(0x18, 4, 0xffffffff);
  device.write(0x1c, 4, 0xffffffff);
  t.deepEqual(device.decoded, {});
  device.write(0x10, 4, 0xfffffe00);
  device.write(0x18, 4, 0xfe000000);
  t.deepEqual(device.decoded, { 0: 0xfffffe00n }); // the upper half is being sized still
  device.write(0x1c, 4, 0xfffffffe);
  t.deepEqual(device.decoded, { 0: 0xfffffe00n, 2: 0xfffffffefe000000n });
});

test('decodes a 64-bit BAR at the end of the first 4 GiB, but not a 32-bit one', (t) => {
  const device = new PlainDevice('ivshmem');
  device.decodeOn();
  device.write(0x10, 4, 0xffffff00);
  device.write(0x18, 4, 0xff000000);
  t.deepEqual(device.decoded, { 2: 0xff000000n });
});

test('takes the address of a BAR of more than 4 GiB from the upper half alone', (t) => {
  const device = new PlainDevice('written-gpu');
  device.decodeOn();
  device.write(0x14, 4, 0xfffffff0);
  t.deepEqual(device.decoded, {});
  device.write(0x18, 4, 0x80f);
  t.deepEqual(device.decoded, { 1: 0x80800000000n });
});

test('decodes the ROM only while its own enable bit is set as well', (t) => {
  const device = new PlainDevice('written-gpu');
  device.write(0x30, 4, 0xf0000000);
  device.decodeOn();
  t.deepEqual(device.decoded, {});
  device.write(0x30, 1, 1);
  t.deepEqual(device.decoded, { 6: 0xf0000000n });
  device.decodeOff();
  t.deepEqual(device.decoded, {});
  device.decodeOn();
  device.write(0x30, 4, 1);
  t.deepEqual(device.decoded, {}); // at 0
  device.write(0x30, 4, 0xffffffff);
  t.deepEqual(device.decoded, {}); // being sized
});

test('rejects invalid registers, with name and offset', (t) => {
  const refused = (device: Parameters<typeof withRegions>[0], regions: Parameters<typeof withRegions>[1]): string => {
    const error = throwsCode(t, () => new PlainDevice(withRegions(device, regions)), 'ERR_BAD_CONFIG_SPACE');
    t.is(error.bdf, '0000:01:00.0');
    t.regex(error.message, /0000:01:00\.0/);
    return error.message;
  };
  t.regex(refused(changed('edu', { 0x24: [0x04] }), { 5: 0x1000n }), /0x24.*BAR 5 has 64 bits.*no register/);
  t.regex(refused('ivshmem', { 3: 0x1000n }), /0x18.*BAR 2 has 64 bits.*BAR 3, is a region of its own/);
  t.regex(refused('ivshmem', { 2: undefined, 3: 0x1000n }), /0x18.*BAR 3, is a region of its own/);
  t.regex(refused(changed('edu', { 0x10: [0x06] }), {}), /0x10.*BAR 0 has a reserved type/);
  t.regex(refused('edu', { 0: 0x80000001n }), /0x10.*0x80000001 bytes does not fit/);
  t.regex(refused('nvme', { 0: (1n << 63n) + 1n }), /0x10.*does not fit/);
  t.regex(refused('edu', { 6: 0x80000001n }), /0x30.*does not fit/);
});

test('accepts the largest regions', (t) => {
  const small = new PlainDevice(withRegions('edu', { 0: 0x80000000n }));
  t.is(small.size(0x10), 0x80000000);
  const large = new PlainDevice(withRegions('written-gpu', { 1: 1n << 63n }));
  t.deepEqual([large.size(0x14), large.size(0x18)], [0x0c, 0x80000000]);
  // 64-bit type in the last register, without a region: it is not a BAR.
  t.deepEqual(plain(new PlainDevice(changed('edu', { 0x24: [0x04] })).config.bars).length, 1);
});
