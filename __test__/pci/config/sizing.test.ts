// Sizing with memory decode on: a BAR does not decode between the write of all ones and that of an address.
import test from 'ava';
import { MEMORY, barRegister, command, writeBar64 } from '../support/guest.ts';
import { MiB, Fixture } from '../support/fixture.ts';
import { PlainDevice, withRegions } from './plain-device.ts';

test('does not decode a 64-bit BAR while its lower half is all ones, whatever the upper half', (t) => {
  for (const ones of [0xffffffff, 0xfffffff0]) {
    for (const high of [0, 1, 0x40, 0xfffffffe]) {
      const device = new PlainDevice('nvme'); // BAR 2, at 0x18, has 4 MiB
      device.write(0x18, 4, 0xe0000000);
      device.write(0x1c, 4, high);
      device.decodeOn();
      device.write(0x18, 4, ones);
      t.deepEqual(device.decoded, {});
      t.is(device.read(0x18, 4), 0xffc0000c);
      device.write(0x18, 4, 0xe0000000);
      t.deepEqual(device.decoded, { 2: (BigInt(high) << 32n) | 0xe0000000n });
    }
  }
});

test('does not decode a 64-bit BAR while its upper half is all ones, whatever its length', (t) => {
  for (const length of [0x1000n, 1n << 31n, 1n << 32n, 1n << 36n]) {
    const device = new PlainDevice(withRegions('nvme', { 2: length }));
    const low = length < 1n << 32n ? 0x80000000n : 0n;
    device.decodeOn();
    device.write(0x18, 4, Number(low));
    device.write(0x1c, 4, 0x40);
    t.deepEqual(device.decoded, { 2: 0x40_00000000n + low }, `${length}`);
    device.write(0x1c, 4, 0xffffffff);
    t.deepEqual(device.decoded, {}, `${length}`);
    t.is(device.read(0x1c, 4), Number((-length >> 32n) & 0xffffffffn));
    device.write(0x1c, 4, 0x80);
    t.deepEqual(device.decoded, { 2: 0x80_00000000n + low }, `${length}`);
  }
});

test('decodes a BAR at the last address below a multiple of 4 GiB', (t) => {
  const device = new PlainDevice('nvme');
  device.decodeOn();
  device.write(0x1c, 4, 1);
  for (const type of [0, 0x0c]) {
    device.write(0x18, 4, 0xffc00000 + type);
    t.deepEqual(device.decoded, { 2: 0x1_ffc00000n });
  }
});

test('treats all ones in the lower half as sizing for 2 GiB, but not for 4 GiB or more', (t) => {
  const at = (length: bigint): unknown => {
    const device = new PlainDevice(withRegions('nvme', { 2: length }));
    device.decodeOn();
    device.write(0x1c, 4, 0x40);
    device.write(0x18, 4, 0xffffffff);
    return device.decoded[2];
  };
  t.is(at(1n << 32n), 0x40_00000000n);
  t.is(at(1n << 31n), undefined);
  const large = new PlainDevice(withRegions('nvme', { 2: 1n << 32n }));
  large.decodeOn();
  large.write(0x1c, 4, 0xffffffff);
  t.deepEqual(large.decoded, {}); // where the size is asked for, in the upper half
});

test('maps nothing of a 64-bit BAR below 4 GiB while it is sized', async (t) => {
  const fixture = await Fixture.create(t);
  const assigned = await fixture.assign();
  const range = (): string => String(assigned.status().find(({ bar }) => bar === 2)?.range);
  await writeBar64(assigned, 2, 0xe000_0000n);
  await command(assigned, MEMORY);
  t.is(range(), '0xe0000000..0xe0100000');
  for (const half of [0, 4]) {
    const address = assigned.configRead(barRegister(2) + half, 4);
    await assigned.configWrite(barRegister(2) + half, 4, 0xffff_ffff);
    t.is(range(), 'undefined');
    t.deepEqual(fixture.mappedBars(), []);
    await assigned.configWrite(barRegister(2) + half, 4, address);
    t.is(range(), '0xe0000000..0xe0100000');
  }
});

test('sizes a BAR that all ones would move over the interrupt window, with required peer-to-peer', async (t) => {
  const fixture = await Fixture.create(t, 'required');
  const bars = [{ index: 0, length: 32n * MiB, kind: 'memory64' }] as const;
  const assigned = await fixture.assign(fixture.simulated({ bars }));
  await writeBar64(assigned, 0, 0xc000_0000n);
  await command(assigned, MEMORY);
  await t.notThrowsAsync(assigned.configWrite(barRegister(0), 4, 0xffff_ffff));
  t.is(assigned.configRead(barRegister(0), 4), 0xfe00_0004);
});
