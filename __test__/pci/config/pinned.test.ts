// BARs that the VMM pins to a guest address.
import test from 'ava';
import { throwsCode } from '../../support/errors.ts';
import { PlainDevice } from './plain-device.ts';

const pinned = (...places: [number, bigint][]): { pinned: Map<number, bigint> } => ({ pinned: new Map(places) });

test('reads the address of a pinned BAR, whatever the guest writes', (t) => {
  const device = new PlainDevice('ivshmem', pinned([0, 0xe0000000n], [2, 0x3812000000n]));
  t.deepEqual(
    device.config.bars.map((bar) => bar.pinned),
    [0xe0000000n, 0x3812000000n],
  );
  const registers = (): number[] => [0x10, 0x18, 0x1c].map((register) => device.read(register, 4));
  const there = [0xe0000000, 0x1200000c, 0x38];
  t.deepEqual(registers(), there);
  for (const value of [0, 1, 0xd0000000, 0x7fffffff, 0xffffffe0, 0xffff0000]) {
    for (const register of [0x10, 0x18, 0x1c]) device.write(register, 4, value);
    t.deepEqual(registers(), there, value.toString(16));
  }
  device.write(0x1b, 1, 0x55);
  device.write(0x1c, 2, 0x5555);
  t.deepEqual(registers(), there);
  t.is(device.read(0x1b, 1), 0x12);
  t.is(device.read(0x1a, 2), 0x1200);
});

test('reads the size of a pinned BAR after all ones, until the next write', (t) => {
  const device = new PlainDevice('ivshmem', pinned([2, 0x3812000000n]));
  t.is(device.size(0x18), 0xff00000c);
  t.is(device.size(0x1c), 0xffffffff);
  t.deepEqual([device.read(0x18, 4), device.read(0x1c, 4)], [0x1200000c, 0x38]);
  // Each register by itself: only the one with all ones gives its size.
  device.write(0x18, 4, 0xffffffff);
  t.deepEqual([device.read(0x18, 4), device.read(0x1c, 4)], [0xff00000c, 0x38]);
  t.is(device.read(0x18, 4), 0xff00000c, 'any number of times');
  device.write(0x18, 4, 0x12000000);
  device.write(0x1c, 4, 0xffffffff);
  t.deepEqual([device.read(0x18, 4), device.read(0x1c, 4)], [0x1200000c, 0xffffffff]);
});

test('sizes a pinned BAR byte by byte', (t) => {
  const device = new PlainDevice('ivshmem', pinned([0, 0xe0000000n], [2, 0x3812000000n]));
  t.deepEqual(
    [0x10, 0x18, 0x1c].map((register) => device.sizeByBytes(register)),
    [0xffffff00, 0xff00000c, 0xffffffff],
  );
  t.deepEqual(
    [0x10, 0x18, 0x1c].map((register) => device.read(register, 4)),
    [0xe0000000, 0x1200000c, 0x38],
  );
  device.write(0x18, 2, 0xffff);
  t.is(device.read(0x18, 4), 0x1200000c, 'half of the ones do not request the size');
  device.write(0x1a, 2, 0xffff);
  t.is(device.read(0x18, 4), 0xff00000c);
  device.write(0x18, 1, 0);
  t.is(device.read(0x18, 4), 0x1200000c);
});

test('sizes the upper half of a pinned BAR of more than 4 GiB', (t) => {
  const device = new PlainDevice('written-gpu', pinned([1, 0x4000000000n]));
  t.deepEqual([device.size(0x14), device.size(0x18)], [0x0000000c, 0xfffffff8]);
  t.deepEqual([device.read(0x14, 4), device.read(0x18, 4)], [0x0000000c, 0x40]);
});

test('does not treat an address with ones in all writable bits as sizing', (t) => {
  const device = new PlainDevice('written-gpu', pinned([0, 0xa0000000n], [1, 0x4000000000n]));
  device.write(0x10, 4, 0xff000000);
  device.write(0x18, 4, 0xfffffff8);
  t.deepEqual([device.read(0x10, 4), device.read(0x18, 4)], [0xa0000000, 0x40]);
});

test('decodes a pinned BAR at its address while memory decode is on, also while it is sized', (t) => {
  const device = new PlainDevice('ivshmem', pinned([2, 0x3812000000n]));
  t.deepEqual(device.decoded, {});
  device.decodeOn();
  t.deepEqual(device.decoded, { 2: 0x3812000000n });
  device.write(0x18, 4, 0xffffffff);
  device.write(0x1c, 4, 0xffffffff);
  device.write(0x10, 4, 0xe0000000);
  t.deepEqual(device.decoded, { 0: 0xe0000000n, 2: 0x3812000000n });
  device.decodeOff();
  t.deepEqual(device.decoded, {});
});

test('pins a BAR at the end of its address space', (t) => {
  const device = new PlainDevice('ivshmem', pinned([0, 0xffffff00n], [2, (1n << 64n) - 0x1000000n]));
  device.decodeOn();
  t.deepEqual(device.decoded, { 0: 0xffffff00n, 2: 0xffffffffff000000n });
});

test('rejects an invalid address, naming the device and the BAR', (t) => {
  const refused = (code: Parameters<typeof throwsCode>[2], ...places: [number, bigint][]): void => {
    const { message, bdf } = throwsCode(t, () => new PlainDevice('ivshmem', pinned(...places)), code);
    t.is(bdf, '0000:01:00.0');
    t.regex(message, new RegExp(`^BAR ${places.at(-1)?.[0]} of 0000:01:00.0: pinning (to \\S+ )?failed: `));
  };
  refused('ERR_INVALID_ARGUMENT', [1, 0xe0000000n]);
  refused('ERR_INVALID_ARGUMENT', [3, 0xe0000000n]);
  refused('ERR_INVALID_ARGUMENT', [7, 0xe0000000n]);
  refused('ERR_INVALID_ARGUMENT', [-1, 0xe0000000n]);
  refused('ERR_INVALID_ARGUMENT', [0, 0n]);
  refused('ERR_INVALID_ARGUMENT', [0, -0x100n]);
  refused('ERR_INVALID_ARGUMENT', [0, 0xe0000000 as unknown as bigint]);
  refused('ERR_OUT_OF_RANGE', [0, 0x100000000n]);
  refused('ERR_OUT_OF_RANGE', [0, 0xffffff80n]);
  refused('ERR_OUT_OF_RANGE', [2, 1n << 64n]);
  refused('ERR_UNALIGNED', [0, 0xe0000080n]);
  refused('ERR_UNALIGNED', [2, 0x3812800000n]);
  refused('ERR_OVERLAP', [0, 0xe0000f00n], [2, 0xe0000000n]);
  refused('ERR_OVERLAP', [0, 0xe0000000n], [2, 0xe0000000n]);
});

test('rejects pinning of I/O BARs and the ROM', (t) => {
  throwsCode(t, () => new PlainDevice('igb', pinned([2, 0xe0000000n])), 'ERR_INVALID_ARGUMENT');
  const { message } = throwsCode(
    t,
    () => new PlainDevice('written-gpu', pinned([6, 0xe0000000n])),
    'ERR_INVALID_ARGUMENT',
  );
  t.regex(message, /ROM/);
});
