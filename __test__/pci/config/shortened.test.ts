/** Config spaces truncated by the host. An unprivileged user gets 64 bytes; some chips have 160 or 1,536. */
import test, { type ExecutionContext } from 'ava';
import { AssignedDevice, GuestMemory } from '../../../ts/index.ts';
import { SimulatedDevice } from '../../../ts/testing.ts';
import { rejectsCode, throwsCode } from '../../support/errors.ts';
import { PlainDevice, changed } from './plain-device.ts';
import { RECORDED, recorded } from './recorded/load.ts';

/** The first bytes of a recorded config space, with some of them changed. */
function shortened(name: 'edu' | 'nvme' | 'igb' | 'e1000e', length: number, changes = {}) {
  const image = changed(name, changes);
  return { ...image, bytes: image.bytes.slice(0, length) };
}

async function assign(t: ExecutionContext, device: SimulatedDevice): Promise<AssignedDevice> {
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  const assigned = await AssignedDevice.create({ device, memory });
  t.teardown(() => assigned.close());
  return assigned;
}

test('shows no capabilities in a config space of 64 bytes', (t) => {
  for (const name of ['edu', 'nvme', 'igb'] as const) {
    const device = new PlainDevice(shortened(name, 64));
    t.is(device.config.size, 64);
    t.is(device.read(0x06, 2) & 0x10, 0);
    t.is(device.read(0x34, 1), 0);
    t.is(device.config.msix, undefined);
  }
});

test('ends a chain that points past a truncated config space', (t) => {
  const chained = { 0x34: [0x40], 0x40: [0x09, 0x50], 0x50: [0x09, 0xa4], 0xa4: [0x09, 0] };
  t.deepEqual(new PlainDevice(changed('edu', chained)).chain(), [0x40, 0x50, 0xa4]);
  t.deepEqual(new PlainDevice(shortened('edu', 0xa0, chained)).chain(), [0x40, 0x50]);
});

test('hides a capability cut by a truncated config space', (t) => {
  const cut = { 0x34: [0x50], 0x50: [0x09, 0x9c], 0x9c: [0x01, 0x60, 3, 0], 0x60: [0x09, 0] };
  t.deepEqual(new PlainDevice(shortened('edu', 0xa0, cut)).chain(), [0x50, 0x60]);
});

test('ends an extended chain at the truncation, and hides hidden capabilities completely', (t) => {
  const chained = { 0x102: [0x01, 0x14], 0x142: [0x01, 0x60] };
  t.deepEqual(new PlainDevice(shortened('e1000e', 0x600, chained)).extendedChain(), [
    [0x01, 0x100],
    [0x03, 0x140],
  ]);
  const device = new PlainDevice(shortened('e1000e', 0x600, { 0x142: [0xc1, 0x5f], 0x5fc: [0x15, 0, 1, 0] }));
  t.deepEqual(
    device.extendedChain().map(([id]) => id),
    [0x01, 0x03],
  );
  t.is(device.read(0x5fc, 4), 0);
});

test('assigns every recorded device with 64 and with 256 bytes of config space', async (t) => {
  for (const name of RECORDED) {
    for (const length of [64, 256]) {
      const { bytes, regionLengths } = recorded(name);
      const bars = regionLengths.flatMap((found, index) =>
        found === undefined || index > 5 ? [] : [{ index, length: found }],
      );
      const device = new SimulatedDevice({ bdf: '0000:00:04.0', config: bytes.slice(0, length), bars });
      const assigned = await assign(t, device);
      const [low = 0, high = 0] = bytes;
      t.is(assigned.configRead(0, 2), low + 256 * high, `${name}, ${length} bytes`);
      t.is(assigned.configRead(length, 4), 0xffff_ffff);
    }
  }
});

test('shows the IDs of /sys for a virtual function', async (t) => {
  const { bytes } = recorded('edu');
  bytes.fill(0xff, 0, 4); // SR-IOV 1.1, 3.4.1.1
  const device = new SimulatedDevice({
    bdf: '0000:00:10.0',
    config: bytes,
    ids: { vendor: 0x8086, device: 0x10ca },
  });
  const assigned = await assign(t, device);
  t.is(assigned.configRead(0, 4), 0x10ca_8086);
});

test('rejects a virtual function without IDs with an error of its own', async (t) => {
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  const { bytes } = recorded('igb');
  bytes.fill(0xff, 0, 4);
  const device = new SimulatedDevice({ bdf: '0000:00:10.0', config: bytes });
  const error = await rejectsCode(t, AssignedDevice.create({ device, memory }), 'ERR_BAD_CONFIG_SPACE');
  t.regex(error.message, /virtual function/);
  t.notRegex(error.message, /gone/);
});

test('rejects IDs for a recorded config space that contains IDs', (t) => {
  const config = recorded('edu').bytes;
  throwsCode(t, () => new SimulatedDevice({ bdf: '0000:00:04.0', config, ids: { vendor: 1 } }), 'ERR_INVALID_ARGUMENT');
});
