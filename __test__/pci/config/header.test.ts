// The header of an assigned device's config space, and which accesses there are.
import test from 'ava';
import { ConfigSpace } from '../../../ts/pci/config/config-space.ts';
import { throwsCode } from '../../support/errors.ts';
import { PlainDevice, changed } from './plain-device.ts';
import { recorded } from './recorded/load.ts';

test('accepts accesses of 1, 2 or 4 bytes at any offset that a guest can address', (t) => {
  for (const name of ['edu', 'nvme'] as const) {
    const { config } = new PlainDevice(name);
    t.is(config.size, name === 'edu' ? 256 : 4096);
    for (const size of [1, 2, 4]) {
      for (let offset = 0; offset < 4096; offset++) {
        const within = Math.max(0, Math.min(size, config.size - offset));
        if (config.countPresentBytes(offset, size) !== within) t.fail(`${name} ${offset}+${size}`);
      }
      throwsCode(t, () => config.countPresentBytes(4096, size), 'ERR_OUT_OF_RANGE');
    }
    for (const size of [0, 3, 5, 8, -1, NaN, '4' as unknown as number]) {
      throwsCode(t, () => config.countPresentBytes(0, size), 'ERR_INVALID_ARGUMENT', String(size));
    }
    for (const offset of [-4, 0.5, NaN, Infinity, 0n as unknown as number]) {
      throwsCode(t, () => config.countPresentBytes(offset, 4), 'ERR_INVALID_ARGUMENT', String(offset));
    }
  }
});

test('reads and writes only within config space', (t) => {
  const { config, state } = new PlainDevice('edu');
  const bytes = (length: number): Uint8Array => new Uint8Array(length);
  throwsCode(t, () => config.read(state, 0x100, bytes(4)), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => config.read(state, 0xff, bytes(2)), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => config.planWrite(state, 0x100, bytes(4), bytes(4)), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => config.planWrite(state, 0, bytes(4), bytes(2)), 'ERR_INVALID_ARGUMENT');
});

test('rejects a config space that is shorter than its header, longer than 4096 bytes, or not in whole dwords', (t) => {
  const image = recorded('edu');
  for (const length of [0, 60, 63, 255, 257, 4095, 4100, 8192]) {
    const bytes = new Uint8Array(length);
    const make = (): unknown => new ConfigSpace({ ...image, bytes, intx: true, msiVectors: 1 });
    throwsCode(t, make, 'ERR_INVALID_ARGUMENT', String(length));
  }
});

test('rejects a device that is gone, and a bridge', (t) => {
  const image = recorded('nvme');
  const gone = { ...image, bytes: image.bytes.slice().fill(0xff) };
  t.regex(throwsCode(t, () => new PlainDevice(gone), 'ERR_BAD_CONFIG_SPACE').message, /gone or in D3cold/);
  for (const type of [0x01, 0x81, 0x02, 0x7f]) {
    const error = throwsCode(t, () => new PlainDevice(changed('edu', { 0x0e: [type] })), 'ERR_BAD_CONFIG_SPACE');
    t.regex(error.message, /0000:01:00\.0.*0xe: the header (is of|has) type/);
  }
});

test('copies the caller’s bytes', (t) => {
  const image = recorded('nvme');
  // Bytes in the middle of a buffer, as a file read may return.
  const whole = new Uint8Array(8192).fill(0xee);
  whole.set(image.bytes, 100);
  const device = new PlainDevice({ ...image, bytes: whole.subarray(100, 100 + 4096) });
  whole.fill(0xff);
  t.deepEqual(device.chain(), [0x40, 0x80, 0x60]);
  device.write(0x10, 4, 0xe0000000);
  t.is(device.read(0x10, 4), 0xe0000004);
});

test('reads identity and class from the device', (t) => {
  const device = new PlainDevice('nvme');
  t.deepEqual([device.read(0, 4), device.read(8, 4), device.read(0x2c, 4)], [0x00101b36, 0x01080202, 0x11001af4]);
  device.bytes[8] = 0x77;
  t.is(device.read(8, 1), 0x77);
});

test('records memory enable and forwards it to the device', (t) => {
  const device = new PlainDevice('edu');
  t.is(device.bytes[4], 0x03);
  t.is(device.read(4, 2), 0x0100, 'off at power-on, whatever the device has');
  device.write(4, 2, 0x0002);
  t.is(device.read(4, 2), 0x0002);
  t.deepEqual(device.told, [{ offset: 4, bytes: Uint8Array.of(0x03, 0x00) }]);
  device.write(4, 1, 0);
  t.is(device.read(4, 2), 0);
  t.deepEqual(device.told, [{ offset: 4, bytes: Uint8Array.of(0x01) }]);
});

test('reads I/O enable as 0, and keeps the device’s bit', (t) => {
  for (const own of [0, 1]) {
    const device = new PlainDevice(changed('igb', { 4: [own] }));
    device.write(4, 2, 0x0007);
    t.is(device.read(4, 2), 0x0006);
    t.is(device.bytes[4], 0x06 | own);
    device.write(4, 2, 0);
    t.is(device.bytes[4], own);
  }
});

test('leaves bus master and the other bits of Command to the device', (t) => {
  const device = new PlainDevice('edu');
  device.write(4, 2, 0x0544);
  t.deepEqual(device.bytes.slice(4, 6), Uint8Array.of(0x45, 0x05)); // I/O enable as it was
  t.is(device.read(4, 2), 0x0544);
  device.bytes[4] = 0;
  device.bytes[5] = 0;
  t.is(device.read(4, 2), 0);
});

test('reports INTx disable', (t) => {
  const device = new PlainDevice('written-nic'); // whose device has it banned
  t.false(device.config.control(device.state).intxDisabled);
  device.write(5, 1, 4);
  t.true(device.config.control(device.state).intxDisabled);
  device.write(4, 2, 0x0002);
  t.false(device.config.control(device.state).intxDisabled);
});

test('reads Status from the device, except for the capability list bit', (t) => {
  const edu = new PlainDevice('edu');
  t.is(edu.read(6, 2), 0x0010);
  edu.bytes[6] = 0x08;
  edu.bytes[7] = 0x29;
  t.is(edu.read(6, 2), 0x2918);
  edu.write(6, 2, 0xf900);
  t.deepEqual(edu.told, [{ offset: 6, bytes: Uint8Array.of(0x00, 0xf9) }]);
  t.is(new PlainDevice('ivshmem').read(6, 2), 0);
  t.is(new PlainDevice('edu', { msiVectors: 0 }).read(6, 2), 0, 'its only capability is hidden');
});

test('forwards a write of Command and Status as one access', (t) => {
  const device = new PlainDevice('edu');
  device.write(4, 4, 0xf9000006);
  t.deepEqual(device.told, [{ offset: 4, bytes: Uint8Array.of(0x07, 0x00, 0x10, 0xf9) }]);
});

test('shows one function and no self test', (t) => {
  const nic = new PlainDevice('written-nic');
  t.deepEqual([nic.bytes[0x0e], nic.bytes[0x0f]], [0x80, 0x00]);
  t.is(nic.read(0x0e, 1), 0);
  const gpu = new PlainDevice('written-gpu');
  t.is(gpu.bytes[0x0f], 0x40);
  t.is(gpu.read(0x0f, 1), 0);
  gpu.write(0x0c, 4, 0xffffffff);
  // Cache line size and latency are the device's.
  t.deepEqual(gpu.told, [{ offset: 0x0c, bytes: Uint8Array.of(0xff, 0xff) }]);
  t.is(gpu.read(0x0c, 4), 0x0000ffff);
});

test('stores the interrupt line for the guest', (t) => {
  const device = new PlainDevice('edu');
  t.is(device.bytes[0x3c], 0x0a);
  t.is(device.read(0x3c, 1), 0, 'the host’s is not to be seen');
  device.write(0x3c, 1, 0xa5);
  t.is(device.read(0x3c, 1), 0xa5);
  t.deepEqual(device.told, []);
});

test('shows the interrupt pin of the device if the pin is supported', (t) => {
  t.is(new PlainDevice('written-nic').read(0x3d, 1), 2);
  const device = new PlainDevice('written-nic', { intx: false });
  t.is(device.read(0x3d, 1), 0);
  device.write(0x3d, 1, 1);
  t.is(device.read(0x3d, 1), 0);
  t.deepEqual(device.told, []);
});

test('returns the same state for a write without effect, and never changes a state', (t) => {
  const device = new PlainDevice('written-nic');
  const { state } = device;
  device.write(4, 2, 0x0004);
  t.is(device.state, state);
  const image = state.bytes.slice();
  device.write(0x10, 4, 0xe0000000);
  device.write(0x44, 2, 3);
  t.not(device.state, state);
  t.deepEqual(state.bytes, image);
  t.is(device.config.initial, state);
});
