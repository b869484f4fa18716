// Values of config space that the VMM overrides for the guest: IDs, class and port type.
import test from 'ava';
import type { ConfigOverrides, ErrorCode, GuestPortType } from '../../../ts/index.ts';
import { readOverrides } from '../../../ts/pci/config/config-overrides.ts';
import { throwsCode } from '../../support/errors.ts';
import { PlainDevice, changed } from './plain-device.ts';

type Source = ConstructorParameters<typeof PlainDevice>[0];

function withConfig(source: Source, overrides: ConfigOverrides): PlainDevice {
  return new PlainDevice(source, { overrides: readOverrides('0000:01:00.0', overrides) });
}

const withType = (source: Source, portType: GuestPortType): PlainDevice => withConfig(source, { portType });

test('the guest reads overridden IDs, and the device’s for the others', (t) => {
  const device = withConfig('written-nic', {
    vendorId: 0x1af4,
    deviceId: 0x1041,
    subsystemVendorId: 0x1af5,
    subsystemId: 0x1100,
    revisionId: 0xa5,
    classCode: 0x030201,
  });
  t.is(device.read(0x00, 4), 0x10411af4);
  t.is(device.read(0x08, 4), 0x030201a5);
  t.is(device.read(0x2c, 4), 0x11001af5);
  t.is(withConfig('written-nic', { subsystemId: 7 }).read(0x2c, 4), 0x00078086);
  t.is(withConfig('written-nic', { revisionId: 0 }).read(0x08, 4), 0x02000000, 'the class is the device’s');
  t.is(withConfig('written-nic', { classCode: 0 }).read(0x08, 4), 0x00000002, 'the revision is the device’s');
});

test('drops a guest’s writes to overridden registers, and keeps them over a reset', (t) => {
  const ids = { vendorId: 0x1af4, deviceId: 0x1041, revisionId: 1, classCode: 0x030201 };
  const device = withConfig('written-nic', { ...ids, portType: 'integrated-endpoint' });
  for (const offset of [0x00, 0x08]) {
    const before = device.read(offset, 4);
    device.write(offset, 4, 0xffffffff);
    t.is(device.read(offset, 4), before);
  }
  const type = device.read(0xa2, 2);
  device.write(0xa2, 2, 0xffff);
  t.is(device.read(0xa2, 2), type);
  device.state = device.config.afterReset(device.state);
  t.is(device.read(0x00, 2), 0x1af4);
  t.is(device.read(0xa2, 2), type);
});

test('rejects values out of range, and unknown port types', (t) => {
  const wrong: [ConfigOverrides, ErrorCode, RegExp][] = [
    [{ vendorId: 0 }, 'ERR_OUT_OF_RANGE', /overriding vendorId failed: it is 1 to 0xfffe, not the number 0\./],
    [{ vendorId: 0xffff }, 'ERR_OUT_OF_RANGE', /0xfffe/],
    [{ deviceId: 0x10000 }, 'ERR_OUT_OF_RANGE', /0 to 0xffff/],
    [{ subsystemVendorId: -1 }, 'ERR_OUT_OF_RANGE', /-1/],
    [{ subsystemId: 0.5 }, 'ERR_OUT_OF_RANGE', /0.5/],
    [{ revisionId: 0x100 }, 'ERR_OUT_OF_RANGE', /0 to 0xff,/],
    [{ classCode: 0x1000000 }, 'ERR_OUT_OF_RANGE', /0 to 0xffffff/],
    [{ portType: 'root-port' as never }, 'ERR_INVALID_ARGUMENT', /one of endpoint, legacy-endpoint/],
  ];
  for (const [overrides, code, pattern] of wrong) {
    t.regex(throwsCode(t, () => withConfig('written-nic', overrides), code, String(pattern)).message, pattern);
  }
});

/** Type and link registers of the PCI Express capability at an offset. */
function link(device: PlainDevice, express: number): Record<string, number> {
  return {
    type: (device.read(express + 2, 2) >> 4) & 0xf,
    capabilities: device.read(express + 0x0c, 4),
    control: device.read(express + 0x10, 2),
    status: device.read(express + 0x12, 2),
    capabilities2: device.read(express + 0x2c, 4),
    control2: device.read(express + 0x30, 2),
    status2: device.read(express + 0x32, 2),
  };
}

const LINK = {
  capabilities: 0x0043dc82,
  control: 0x0040,
  status: 0x1042,
  capabilities2: 0x0000000e,
  control2: 0x0003,
  status2: 0x001e,
};
/** An endpoint with a link, and version 2 of the capability at 0xa0. */
const endpoint = changed('written-nic', {
  0xac: [0x82, 0xdc, 0x43, 0x00, 0x40, 0x00, 0x42, 0x10],
  0xcc: [0x0e, 0x00, 0x00, 0x00, 0x03, 0x00, 0x1e, 0x00],
});

test('an endpoint on a root bus is an integrated one without a link', (t) => {
  t.deepEqual(link(new PlainDevice(endpoint), 0xa0), { type: 0, ...LINK });
  const device = withType(endpoint, 'integrated-endpoint');
  const absent = { capabilities: 0, control: 0, status: 0, capabilities2: 0, control2: 0, status2: 0 };
  t.deepEqual(link(device, 0xa0), { type: 9, ...absent });
  device.write(0xb0, 2, 0x0003);
  t.deepEqual(device.told, [], 'link control');
  device.write(0xa8, 2, 0x2930);
  t.is(device.told.length, 1, 'device control is the device’s');
});

test('an integrated endpoint below a port is one with a link of 2.5 GT/s and one lane', (t) => {
  const integrated = changed('written-nic', { 0xa2: [0x92, 0x00] });
  const device = withType(integrated, 'endpoint');
  t.deepEqual(link(device, 0xa0), {
    type: 0,
    capabilities: 0x11,
    control: 0,
    status: 0x11,
    capabilities2: 0,
    control2: 0,
    status2: 0,
  });
});

test('a change between two types with a link leaves the link as it is', (t) => {
  t.deepEqual(link(withType(endpoint, 'legacy-endpoint'), 0xa0), { type: 1, ...LINK });
  t.deepEqual(link(withType(endpoint, 'endpoint'), 0xa0), { type: 0, ...LINK });
});

test('changes the registers of version 1 alone, and rejects a link that it has no registers for', (t) => {
  const first = (type: number) => changed('written-nic', { 0xa2: [type << 4, 0x00], 0xcc: [0x5a, 0x5a, 0x5a, 0x5a] });
  for (const version of [0, 1]) {
    const legacy = first(1);
    legacy.bytes[0xa2] = (1 << 4) | version;
    const device = withType(legacy, 'integrated-endpoint');
    t.is(link(device, 0xa0)['type'], 9);
    t.is(link(device, 0xa0)['capabilities'], 0);
    t.is(device.read(0xcc, 4), 0x5a5a5a5a, 'behind the capability');
  }
  const { message } = throwsCode(t, () => withType(first(9), 'endpoint'), 'ERR_UNSUPPORTED');
  t.is(
    message,
    '0000:01:00.0: the port type endpoint failed: its capability has no registers for a link. Omit the port type.',
  );
});

test('a conventional function has no PCI Express capability, no reset by it, and 256 bytes', (t) => {
  const device = withType('written-nic', 'conventional');
  t.deepEqual(device.chain(), [0x40, 0x50, 0x70, 0xe0, 0xf0]);
  t.is(device.config.size, 256);
  for (let offset = 0xa0; offset < 0xdc; offset += 4) t.is(device.read(offset, 4), 0);
  device.write(0xa8, 2, 0x8000); // function-level reset
  t.deepEqual([device.told, device.functionReset], [[], false]);
  t.deepEqual(withType('edu', 'conventional').chain(), [0x40], 'one that is conventional already');
});

test('the PCI Express capability ends at a capability that a device packs behind its link registers', (t) => {
  // Version 2 at 0xa0: its registers of slots, from 0xd4 on, would be reserved.
  const packed = changed('written-nic', { 0xa1: [0xd4], 0xd4: [0x09, 0xe0, 8, 1, 2, 3, 4, 5] });
  t.is((packed.bytes[0xa2] ?? 0) & 15, 2);
  const device = withType(packed, 'conventional');
  t.deepEqual(device.chain(), [0x40, 0x50, 0x70, 0xd4, 0xe0, 0xf0]);
  t.deepEqual([device.read(0xd4, 4), device.read(0xd8, 4)], [0x0108e009, 0x05040302]);
  for (let offset = 0xa0; offset < 0xd4; offset += 4) t.is(device.read(offset, 4), 0);
  // Of version 1 too, before the link registers: it has no room for a link.
  const short = changed('written-nic', { 0xa1: [0xac], 0xa2: [0x91], 0xac: [0x09, 0xe0, 8, 1, 2, 3, 4, 5] });
  t.is(withType(short, 'conventional').read(0xb0, 4), 0x05040302);
  const legacy = changed('written-nic', { 0xa1: [0xac], 0xa2: [0x01], 0xac: [0x09, 0xe0, 8, 1, 2, 3, 4, 5] });
  t.is(withType(legacy, 'conventional').read(0xb0, 4), 0x05040302);
  t.is(withType(legacy, 'integrated-endpoint').read(0xb0, 4), 0x05040302, 'no link register overlays it');
});

test('rejects a port type for a conventional device', (t) => {
  for (const type of ['endpoint', 'legacy-endpoint', 'integrated-endpoint'] as const) {
    t.regex(throwsCode(t, () => withType('edu', type), 'ERR_UNSUPPORTED').message, /the device is not PCI Express/);
  }
});
