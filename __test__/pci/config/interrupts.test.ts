// MSI and MSI-X in an assigned device's config space.
import test from 'ava';
import type { InterruptControl } from '../../../ts/pci/config/interrupt-control.ts';
import { throwsCode } from '../../support/errors.ts';
import { PlainDevice, changed, withRegions } from './plain-device.ts';

const msi = ({ config, state }: PlainDevice): InterruptControl['msi'] => config.control(state).msi;
const msix = ({ config, state }: PlainDevice): InterruptControl['msix'] => config.control(state).msix;

test('MSI is off at power-on, whatever the device has', (t) => {
  const nic = new PlainDevice('written-nic');
  t.deepEqual(msi(nic), { enabled: false, vectors: 1, address: 0n, data: 0, masks: 0 });
  t.is(nic.read(0x52, 2), 0x018a);
  t.deepEqual(
    [0x54, 0x58, 0x5c, 0x60, 0x64].map((offset) => nic.read(offset, 4)),
    [0, 0, 0, 0, 0],
  );
});

test('MSI of 64 bits with masks is emulated, and not forwarded to the device', (t) => {
  const nic = new PlainDevice('written-nic');
  const before = nic.bytes.slice();
  nic.write(0x54, 4, 0xfee01004);
  nic.write(0x58, 4, 0x12);
  nic.write(0x5c, 2, 0x4041);
  nic.write(0x60, 4, 0x80000005);
  nic.write(0x52, 2, 0x01db); // 32 vectors, on
  t.deepEqual(msi(nic), { enabled: true, vectors: 32, address: 0x12fee01004n, data: 0x4041, masks: 0x80000005 });
  t.deepEqual(
    [0x54, 0x58, 0x5c, 0x60].map((offset) => nic.read(offset, 4)),
    [0xfee01004, 0x12, 0x4041, 0x80000005],
  );
  t.is(nic.read(0x52, 2), 0x01db);
  nic.write(0x53, 1, 0);
  nic.write(0x52, 1, 0);
  t.is(nic.read(0x52, 2), 0x018a, 'capability bits are read-only');
  t.deepEqual(nic.bytes, before);
});

test('MSI of 32 bits has its data at the offset of the upper half', (t) => {
  const device = new PlainDevice('written-conventional');
  device.write(0xd4, 4, 0xfee00000);
  device.write(0xd8, 4, 0xffff1234);
  device.write(0xdc, 4, 0xffffffff);
  device.write(0xd2, 2, 0x0021); // 4 vectors
  t.deepEqual(msi(device), { enabled: true, vectors: 4, address: 0xfee00000n, data: 0x1234, masks: 0xf });
  t.is(device.read(0xd8, 4), 0x1234);
  t.is(device.read(0xdc, 4), 0xf, 'a mask for each vector');
});

test('MSI without masks ends with its data', (t) => {
  const edu = new PlainDevice('edu');
  edu.write(0x4c, 4, 0xabcd1234);
  t.is(msi(edu)?.data, 0x1234);
  t.is(msi(edu)?.masks, 0);
  t.deepEqual(edu.told, [{ offset: 0x4e, bytes: Uint8Array.of(0xcd, 0xab) }]);
});

test('message addresses are multiples of 4', (t) => {
  const edu = new PlainDevice('edu');
  edu.write(0x44, 4, 0xffffffff);
  t.is(edu.read(0x44, 4), 0xfffffffc);
  t.is(msi(edu)?.address, 0xfffffffcn);
});

test('the guest has at most as many messages as the host has vectors', (t) => {
  for (const [offered, most] of [
    [1, 0],
    [2, 1],
    [3, 1],
    [5, 2],
    [16, 4],
    [31, 4],
    [32, 5],
    [1000, 5],
  ] as const) {
    const nic = new PlainDevice('written-nic', { msiVectors: offered });
    t.is((nic.read(0x52, 2) >> 1) & 7, most, `${offered}`);
    for (let asked = 0; asked < 8; asked++) {
      nic.write(0x52, 2, (asked << 4) | 1);
      t.is(msi(nic)?.vectors, 2 ** Math.min(asked, most), `${asked} of ${offered}`);
    }
    nic.write(0x60, 4, 0xffffffff);
    t.is(nic.read(0x60, 4), 2 ** (2 ** most) - 1, `${offered}`);
  }
  // At most as many as the device supports, and as there are.
  t.is((new PlainDevice('written-conventional').read(0xd2, 2) >> 1) & 7, 2);
  const reserved = new PlainDevice(changed('written-nic', { 0x52: [0x8e] }), { msiVectors: 128 });
  t.is((reserved.read(0x52, 2) >> 1) & 7, 5);
});

test('pending messages are visible if the device has pending bits', (t) => {
  const nic = new PlainDevice('written-nic', { msiVectors: 8 });
  nic.msiPending = 0xffffff81;
  t.is(nic.read(0x64, 4), 0x81);
  t.deepEqual([nic.read(0x64, 1), nic.read(0x65, 1), nic.read(0x66, 2), nic.read(0x60, 4)], [0x81, 0, 0, 0]);
  nic.write(0x64, 4, 0);
  t.deepEqual(nic.told, []);
  t.is(nic.read(0x64, 4), 0x81);
  const all = new PlainDevice('written-nic');
  all.msiPending = 0x80000001;
  t.is(all.read(0x64, 4), 0x80000001);
  t.is(all.read(0x67, 1), 0x80);
  const edu = new PlainDevice('edu');
  edu.msiPending = 1;
  edu.bytes.fill(0, 0x4e, 0x60);
  for (let offset = 0x44; offset < 0x60; offset += 4) t.is(edu.read(offset, 4), 0);
});

test('MSI-X is off at power-on, and its control is emulated', (t) => {
  const nic = new PlainDevice('written-nic');
  t.is(nic.bytes[0x73], 0x80);
  t.deepEqual(msix(nic), { enabled: false, masked: false });
  t.is(nic.read(0x72, 2), 0x003f);
  nic.write(0x72, 2, 0xc000);
  t.deepEqual(msix(nic), { enabled: true, masked: true });
  t.is(nic.read(0x72, 2), 0xc03f);
  nic.write(0x73, 1, 0x80);
  t.deepEqual(msix(nic), { enabled: true, masked: false });
  nic.write(0x70, 4, 0);
  t.deepEqual(msix(nic), { enabled: false, masked: false });
  t.deepEqual(nic.told, []);
  t.deepEqual(nic.bytes, new PlainDevice('written-nic').bytes);
});

test('the place of table and pending bits is that of the device, and read-only', (t) => {
  const nic = new PlainDevice('written-nic');
  t.deepEqual(nic.config.msix, {
    vectors: 64,
    table: { bar: 4, offset: 0n, length: 1024n },
    pending: { bar: 4, offset: 0x8000n, length: 8n },
  });
  nic.write(0x74, 4, 0xffffffff);
  nic.write(0x78, 4, 0xffffffff);
  t.deepEqual([nic.read(0x74, 4), nic.read(0x78, 4)], [4, 0x8004]);
  t.deepEqual(new PlainDevice('nvme').config.msix, {
    vectors: 65,
    table: { bar: 0, offset: 0x2000n, length: 1040n },
    pending: { bar: 0, offset: 0x3000n, length: 16n },
  });
  t.is(new PlainDevice('edu').config.msix, undefined);
  t.is(msix(new PlainDevice('edu')), undefined);
  t.is(msi(new PlainDevice('nvme')), undefined);
});

test('rejects a table or pending bits outside of a BAR', (t) => {
  const refused = (message: RegExp, ...device: Parameters<typeof changed>): void => {
    t.regex(throwsCode(t, () => new PlainDevice(changed(...device)), 'ERR_BAD_CONFIG_SPACE').message, message);
  };
  refused(/0x74: MSI-X has its table, 0x400 bytes, at 0xfe00 of BAR 4, which ends at 0x10000/, 'written-nic', {
    0x74: [0x04, 0xfe],
  });
  refused(/0x78: MSI-X has its pending bits, 0x8 bytes, at 0x10000 of BAR 4, which ends/, 'written-nic', {
    0x78: [0x04, 0x00, 0x01],
  });
  refused(/0x74: .*BAR 5, which is not memory/, 'written-nic', { 0x74: [0x05] });
  refused(/0x74: .*BAR 1, which is not memory/, 'written-nic', { 0x74: [0x01] });
  refused(/0x78: .*BAR 7, which is not memory/, 'written-nic', { 0x78: [0x07] });
  refused(/0xc8: .*BAR 6, which is not memory/, 'written-gpu', { 0x61: [0xc0], 0xc0: [17, 0, 0, 0, 0, 0, 0, 0, 6] });
  refused(/0x78: the table and the pending bits of MSI-X overlap/, 'written-nic', { 0x78: [0xfc, 0x03] });
  // The very end is valid, and right behind the table. A region counts, not its register.
  new PlainDevice(changed('written-nic', { 0x74: [0x04, 0xfc], 0x78: [0x04, 0x04] }));
  new PlainDevice(changed('written-nic', { 0x78: [0x04, 0x04] }));
  const short = withRegions('written-nic', { 4: 0x8001n });
  throwsCode(t, () => new PlainDevice(short), 'ERR_BAD_CONFIG_SPACE');
});
