// Capabilities and overrides of an assigned device, as its guest reads them and `inspect` reports them.
import test from 'ava';
import { AssignedDevice, nvidiaP2pClique } from '../../ts/index.ts';
import { SimulatedDevice } from '../../ts/testing.ts';
import { rejectsCode } from '../support/errors.ts';
import { recorded } from './config/recorded/load.ts';
import { Fixture, MiB } from './support/fixture.ts';

/** A simulated GPU: IDs, class and capabilities of one of NVIDIA, with small BARs. */
function gpu(): SimulatedDevice {
  const bars = [
    { index: 0, length: MiB },
    { index: 1, length: 2n * MiB },
    { index: 3, length: MiB },
  ];
  return new SimulatedDevice({ bdf: '0000:65:00.0', config: recorded('written-gpu').bytes, bars });
}

async function assigned(fixture: Fixture, options: object): Promise<AssignedDevice> {
  return AssignedDevice.create({ device: gpu(), memory: fixture.memory, ...options });
}

test('a guest finds added capabilities after those of the device, and inspect() marks them', async (t) => {
  const fixture = await Fixture.create(t);
  await using device = await assigned(fixture, { capabilities: [nvidiaP2pClique(3)] });
  const { capabilities } = device.inspect();
  t.deepEqual(capabilities, [
    { id: 0x01, offset: 0x60, added: false },
    { id: 0x05, offset: 0x68, added: false },
    { id: 0x10, offset: 0x78, added: false },
    { id: 0x09, offset: 0xc8, added: true },
  ]);
  t.is(device.configRead(0x79, 1), 0xc8);
  t.is(device.configRead(0xc8, 4), 0x50080009);
  t.is(Buffer.from(device.ecamRead(0xc8, 8)).toString('hex'), '0900085032501800');
});

test('added capabilities and overrides are the same after a reset and after a guest’s writes', async (t) => {
  const fixture = await Fixture.create(t);
  const config = { deviceId: 0x2330, classCode: 0x030200 };
  await using device = await assigned(fixture, { capabilities: [nvidiaP2pClique(3)], config });
  const all = () => [0x00, 0x08, 0x34, 0x78, 0xc8, 0xcc].map((offset) => device.configRead(offset, 4));
  const before = all();
  t.is(before[0], 0x233010de);
  t.is(before[1], 0x030200a1);
  for (const offset of [0x00, 0x08, 0xc8, 0xcc]) await device.configWrite(offset, 4, 0xffffffff);
  t.deepEqual(all(), before);
  await rejectsCode(t, device.reset(), 'ERR_RESET_UNSUPPORTED');
  t.deepEqual(all(), before);
});

test('an invalid capability or override leaves the device to the caller', async (t) => {
  const fixture = await Fixture.create(t);
  const device = gpu();
  const create = (options: object) => AssignedDevice.create({ device, memory: fixture.memory, ...options });
  await rejectsCode(t, create({ capabilities: [{ ...nvidiaP2pClique(0), offset: 0x78 }] }), 'ERR_OVERLAP');
  await rejectsCode(t, create({ capabilities: {} }), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, create({ capabilities: [{ id: 9, body: [1] }] }), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, create({ config: { vendorId: 0x10000 } }), 'ERR_OUT_OF_RANGE');
  await rejectsCode(t, create({ config: 7 }), 'ERR_INVALID_ARGUMENT');
  await using fine = await create({});
  t.is(fine.bdf, device.bdf);
});
