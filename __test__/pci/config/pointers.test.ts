/** Capability pointers with reserved bits set: software masks the two low bits. */
import test from 'ava';
import { AssignedDevice, GuestMemory } from '../../../ts/index.ts';
import { SimulatedDevice } from '../../../ts/testing.ts';
import { PlainDevice, changed } from './plain-device.ts';

test('masks the reserved bits of the first pointer and of those in the chain', (t) => {
  for (const low of [1, 2, 3]) {
    const device = new PlainDevice(changed('nvme', { 0x34: [0x40 + low], 0x41: [0x80 + low], 0x81: [0x60 + low] }));
    t.deepEqual(device.chain(), [0x40, 0x80, 0x60], `low bits ${low}`);
  }
});

test('masks the reserved bits of pointers in the extended chain', (t) => {
  for (const low of [0x10, 0x20, 0x30]) {
    const device = new PlainDevice(changed('e1000e', { 0x102: [0x01 + low, 0x14] }));
    t.deepEqual(
      device.extendedChain(),
      [
        [0x01, 0x100],
        [0x03, 0x140],
      ],
      `low bits ${low >> 4}`,
    );
  }
});

test('ends the chain at a pointer with reserved bits only', (t) => {
  t.deepEqual(new PlainDevice(changed('edu', { 0x34: [0x03] })).chain(), []);
  t.deepEqual(new PlainDevice(changed('edu', { 0x41: [0x02] })).chain(), [0x40]);
  t.deepEqual(new PlainDevice(changed('e1000e', { 0x142: [0x31, 0x00] })).extendedChain().length, 2);
});

test('finds a capability behind a pointer with reserved bits', async (t) => {
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  const config = changed('edu', { 0x34: [0x43] }).bytes;
  const device = new SimulatedDevice({ bdf: '0000:00:04.0', config, bars: [{ index: 0, length: 1n << 20n }] });
  const assigned = await AssignedDevice.create({ device, memory });
  t.teardown(() => assigned.close());
  t.is(assigned.configRead(0x34, 1), 0x40);
  t.is(device.interrupts.count('msi'), 1, 'and the simulation plays it');
});
