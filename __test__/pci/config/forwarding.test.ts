// The parts of a guest's writes that reach the device, and their accesses.
import test from 'ava';
import { PlainDevice } from './plain-device.ts';

const told = (device: PlainDevice): [number, number[]][] =>
  device.told.map(({ offset, bytes }) => [offset, [...bytes]]);

test('forwards unemulated bytes in one access, as written', (t) => {
  for (const [device, offset] of [
    [new PlainDevice('nvme'), 0x00],
    [new PlainDevice('nvme'), 0x28],
    [new PlainDevice('nvme'), 0x88], // PCI Express device control and status
    [new PlainDevice('nvme'), 0xf0], // in no capability
    [new PlainDevice('written-nic'), 0xf4], // vendor-specific
    [new PlainDevice('written-nic'), 0x104], // advanced error reporting
    [new PlainDevice('written-nic'), 0xffc],
    [new PlainDevice('written-gpu'), 0x254],
  ] as const) {
    device.write(offset, 4, 0x44332211);
    t.deepEqual(told(device), [[offset, [0x11, 0x22, 0x33, 0x44]]]);
    t.is(device.read(offset, 4), 0x44332211);
    device.write(offset + 2, 2, 0x6655);
    t.deepEqual(told(device), [[offset + 2, [0x55, 0x66]]]);
    device.write(offset + 1, 1, 0x77);
    t.deepEqual(told(device), [[offset + 1, [0x77]]]);
  }
});

test('reads unemulated bytes from the device', (t) => {
  const device = new PlainDevice('written-nic');
  device.bytes.set([1, 2, 3, 4], 0x200);
  t.deepEqual([device.read(0x200, 4), device.read(0x202, 2), device.read(0x203, 1)], [0x04030201, 0x0403, 4]);
});

test('forwards the rest of a partly emulated write in aligned accesses', (t) => {
  const nic = new PlainDevice('written-nic');
  nic.write(0xf0, 4, 0x44332211); // identifier and link stay here
  t.deepEqual(told(nic), [[0xf2, [0x33, 0x44]]]);
  nic.write(0x0c, 4, 0x44332211); // header type and self test stay here
  t.deepEqual(told(nic), [[0x0c, [0x11, 0x22]]]);
  nic.write(0x34, 4, 0x44332211); // the pointer stays here
  t.deepEqual(told(nic), [
    [0x35, [0x22]],
    [0x36, [0x33, 0x44]],
  ]);
  nic.write(0x3c, 4, 0x44332211); // line and pin stay here
  t.deepEqual(told(nic), [[0x3e, [0x33, 0x44]]]);
  nic.write(0x34, 2, 0x2211);
  t.deepEqual(told(nic), [[0x35, [0x22]]]);
});

test('fills a partly emulated byte with the device’s own bits', (t) => {
  const device = new PlainDevice('edu');
  device.bytes.set([0x01, 0x00, 0x18, 0x00], 0x04);
  device.write(0x04, 4, 0x00000146);
  t.deepEqual(told(device), [[0x04, [0x47, 0x01, 0x10, 0x00]]]);
  device.bytes.set([0x00, 0x00, 0x00, 0x00], 0x04);
  device.write(0x04, 4, 0xffffffff);
  t.deepEqual(told(device), [[0x04, [0xfe, 0xff, 0xef, 0xff]]]);
});

test('copies the bytes of forwarded writes', (t) => {
  const { config, state } = new PlainDevice('edu');
  const bytes = Buffer.from([1, 2, 3, 4]);
  const { forward } = config.planWrite(state, 0x80, bytes, Buffer.alloc(4));
  bytes.fill(0xff);
  t.deepEqual([...(forward[0]?.bytes ?? [])], [1, 2, 3, 4]);
});
