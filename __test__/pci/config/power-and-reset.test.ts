// Power states, guest-requested resets, and the device state afterwards.
import test from 'ava';
import { PlainDevice, changed } from './plain-device.ts';

/** Returns a device whose BAR decodes. */
function decodingDevice(name: 'written-nic' | 'written-gpu' | 'written-conventional'): PlainDevice {
  const device = new PlainDevice(name);
  device.write(name === 'written-nic' ? 0x18 : 0x10, 4, 0xa0000000);
  device.decodeOn();
  return device;
}

const D0 = 0;
const D1 = 1;
const D2 = 2;
const D3 = 3;

test('decodes BARs only in D0', (t) => {
  for (const state of [D1, D2, D3]) {
    const device = decodingDevice('written-nic');
    t.deepEqual(device.decoded, { 2: 0xa0000000n });
    device.write(0x44, 2, state);
    t.deepEqual(device.decoded, {}, `D${state}`);
    t.is(device.read(0x04, 2) & 2, 2, 'memory enable is another matter');
    device.write(0x44, 2, D0);
    t.deepEqual(device.decoded, { 2: 0xa0000000n }, `D${state}`);
  }
});

test('decodes pinned BARs only in D0', (t) => {
  const device = new PlainDevice('written-nic', { pinned: new Map([[2, 0xa0000000n]]) });
  device.decodeOn();
  device.write(0x44, 2, D3);
  t.deepEqual(device.decoded, {});
});

test('ignores power states that the device does not support', (t) => {
  const gpu = decodingDevice('written-gpu'); // neither D1 nor D2
  for (const [state, answers] of [
    [D1, true],
    [D2, true],
    [D3, false],
  ] as const) {
    gpu.write(0x64, 2, state);
    t.is(0 in gpu.decoded, answers, `D${state}`);
  }
  const conventional = decodingDevice('written-conventional'); // D1 alone
  conventional.write(0x94, 1, D2);
  t.true(0 in conventional.decoded);
  conventional.write(0x94, 1, D1);
  t.false(0 in conventional.decoded);
});

test('enters only deeper states and D0 from a low-power state', (t) => {
  const steps: [from: number, asked: number, then: number][] = [
    [D1, D1, D1],
    [D1, D2, D2],
    [D1, D3, D3],
    [D2, D1, D2],
    [D2, D3, D3],
    [D3, D1, D3],
    [D3, D2, D3],
    [D3, D0, D0],
    [D2, D0, D0],
  ];
  for (const [from, asked, then] of steps) {
    const device = decodingDevice('written-nic');
    device.write(0x44, 2, from);
    device.write(0x44, 2, asked);
    t.is((device.state.bytes[0x44] ?? 0) & 3, then, `D${from} to D${asked}`);
  }
});

test('reads power management from the device, and forwards writes unchanged', (t) => {
  const device = decodingDevice('written-nic');
  device.write(0x44, 2, 0x8103);
  t.deepEqual(device.told, [{ offset: 0x44, bytes: Uint8Array.of(0x03, 0x81) }]);
  device.bytes.set([0x08, 0x00], 0x44);
  t.is(device.read(0x44, 2), 0x0008);
  device.write(0x44, 4, 0xaabb0001);
  t.deepEqual(device.told, [{ offset: 0x44, bytes: Uint8Array.of(0x01, 0x00, 0xbb, 0xaa) }]);
});

test('keeps the power state in a write next to it', (t) => {
  const device = decodingDevice('written-nic');
  device.write(0x45, 1, 0x03);
  t.true(2 in device.decoded);
  device.write(0x44, 1, D3);
  device.write(0x45, 1, 0x00);
  device.write(0x40, 4, 0);
  t.false(2 in device.decoded);
});

test('lists the registers that determine decoding', (t) => {
  t.deepEqual(new PlainDevice('written-nic').config.decodeRegisters, [0x04, 0x44]);
  t.deepEqual(new PlainDevice('nvme').config.decodeRegisters, [0x04, 0x64]);
  t.deepEqual(new PlainDevice('edu').config.decodeRegisters, [0x04]);
  const asked: number[][] = [];
  const { config, state } = new PlainDevice('written-nic');
  config.readDecodeRegisters(state, (offset, length) => {
    asked.push([offset, length]);
    return new Uint8Array(length);
  });
  t.deepEqual(asked, [
    [0x04, 2],
    [0x44, 2],
  ]);
});

test('reads memory enable, the power state and INTx disable from the device', (t) => {
  const device = decodingDevice('written-nic');
  device.bytes.set([0x00, 0x04], 0x04);
  device.readDecodeRegisters();
  t.deepEqual(device.decoded, {});
  t.is(device.read(0x04, 2) & 2, 0);
  t.true(device.config.control(device.state).intxDisabled);
  device.bytes.set([0x07, 0x00], 0x04);
  device.readDecodeRegisters();
  t.deepEqual(device.decoded, { 2: 0xa0000000n });
  t.is(device.read(0x04, 2), 0x0006);
  t.false(device.config.control(device.state).intxDisabled);
  device.bytes[0x44] = 0x0b; // D3hot, no soft reset
  device.readDecodeRegisters();
  t.deepEqual(device.decoded, {});
  device.bytes[0x44] = 0x08;
  device.readDecodeRegisters();
  t.deepEqual(device.decoded, { 2: 0xa0000000n });
  t.is(device.read(0x18, 4), 0xa0000000, 'and nothing else');
});

test('returns the same state when the device has the known values', (t) => {
  const device = decodingDevice('written-nic');
  const { state } = device;
  device.readDecodeRegisters();
  t.is(device.state, state);
});

test('decodes nothing if the device no longer responds', (t) => {
  for (const name of ['written-nic', 'edu'] as const) {
    const device = new PlainDevice(name);
    device.write(name === 'edu' ? 0x10 : 0x18, 4, 0xa0000000);
    device.decodeOn();
    t.is(Object.keys(device.decoded).length, 1);
    device.bytes.fill(0xff);
    device.readDecodeRegisters();
    t.deepEqual(device.decoded, {}, name);
  }
});

test('detects and forwards a PCI Express function-level reset, if supported', (t) => {
  const nic = new PlainDevice('written-nic');
  nic.write(0xa8, 2, 0xa930);
  t.true(nic.functionReset);
  t.deepEqual(nic.told, [{ offset: 0xa8, bytes: Uint8Array.of(0x30, 0xa9) }]);
  nic.write(0xa8, 2, 0x2930);
  t.false(nic.functionReset);
  nic.write(0xa9, 1, 0x80);
  t.true(nic.functionReset);
  nic.write(0xa8, 4, 0x00008000);
  t.true(nic.functionReset);
  nic.write(0xa8, 1, 0x80);
  t.false(nic.functionReset, 'the other byte');
  nic.write(0xac, 4, 0xffffffff);
  t.false(nic.functionReset, 'another register');
  nic.write(0xa4, 4, 0xffffffff);
  t.false(nic.functionReset, 'another register');
  const gpu = new PlainDevice('written-gpu'); // without
  gpu.write(0x80, 2, 0x8000);
  t.false(gpu.functionReset);
  t.deepEqual(gpu.told, [{ offset: 0x80, bytes: Uint8Array.of(0x00, 0x80) }]);
});

test('detects and forwards a reset by advanced features, if supported', (t) => {
  const device = new PlainDevice('written-conventional');
  device.write(0x84, 1, 1);
  t.true(device.functionReset);
  t.deepEqual(device.told, [{ offset: 0x84, bytes: Uint8Array.of(1) }]);
  device.write(0x84, 1, 0xfe);
  t.false(device.functionReset);
  device.write(0x84, 2, 0x0001);
  t.true(device.functionReset);
  device.write(0x80, 4, 0xffffffff);
  t.false(device.functionReset);
  const without = new PlainDevice(changed('written-conventional', { 0x83: [0x01] }));
  without.write(0x84, 1, 1);
  t.false(without.functionReset);
  t.deepEqual(without.told, [{ offset: 0x84, bytes: Uint8Array.of(1) }]);
});

test('disables MSI and MSI-X at a reset, and keeps the BAR addresses', (t) => {
  const nic = decodingDevice('written-nic');
  nic.write(0x3c, 1, 0x0b);
  nic.write(0x05, 1, 0x04);
  nic.write(0x54, 4, 0xfee00000);
  nic.write(0x5c, 2, 0x1234);
  nic.write(0x60, 4, 0xffffffff);
  nic.write(0x52, 2, 0x0051);
  nic.write(0x72, 2, 0xc000);
  const before = nic.state;
  nic.state = nic.config.afterReset(before);
  t.deepEqual(nic.config.control(nic.state), {
    intxDisabled: true,
    msi: { enabled: false, vectors: 1, address: 0n, data: 0, masks: 0 },
    msix: { enabled: false, masked: false },
  });
  t.is(nic.read(0x52, 2), 0x018a);
  t.is(nic.read(0x72, 2), 0x003f);
  t.deepEqual(nic.decoded, { 2: 0xa0000000n });
  t.is(nic.read(0x3c, 1), 0x0b);
  t.true(nic.config.control(before).msix?.enabled, 'the state before is as it was');
});

test('is in D0 and decodes no BAR at power-on', (t) => {
  const nic = decodingDevice('written-nic');
  nic.write(0x44, 2, D3);
  nic.state = nic.config.initial;
  t.deepEqual(nic.decoded, {});
  nic.write(0x18, 4, 0xa0000000);
  nic.decodeOn();
  t.deepEqual(nic.decoded, { 2: 0xa0000000n });
});
