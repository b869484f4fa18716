/**
 * The simulated devices of the example VMM, as assigned devices of a guest.
 */
import test, { type ExecutionContext } from 'ava';
import { EduDriver } from '../../examples/devices/edu.ts';
import { GuestBar } from '../../examples/guest/bar.ts';
import { Firmware } from '../../examples/guest/firmware.ts';
import { type SimulatedKind, simulatedDevices } from '../../examples/vmm/devices/simulated.ts';
import { AssignedDevice, GuestMemory } from '../../ts/index.ts';

const RAM = { start: 0n, length: 16n << 20n };
const WINDOW = 0xe000_0000n;
const MESSAGE = { address: 0xfee0_0000, data: 0x41 };

/** Assigns devices to a guest, whose firmware places their BARs. */
async function guest(t: ExecutionContext, kinds: readonly SimulatedKind[]) {
  const memory = await GuestMemory.create({ ram: [RAM] });
  t.teardown(() => memory.close());
  const simulated = await simulatedDevices(memory, kinds);
  t.teardown(() => simulated[Symbol.asyncDispose]());
  const functions: { device: AssignedDevice; firmware: Firmware }[] = [];
  let next = WINDOW;
  for (const physical of simulated.devices) {
    const device = await AssignedDevice.create({ device: physical, memory });
    t.teardown(() => device.close());
    const firmware = await Firmware.probe(device);
    next = await firmware.placeAll(next);
    await firmware.enable();
    functions.push({ device, firmware });
  }
  return { memory, simulated, functions };
}

test('the guest reads the IDs, classes and BARs of the devices of QEMU', async (t) => {
  const { functions } = await guest(t, ['edu', 'memory']);
  const found = functions.map(({ device, firmware }) => ({
    id: device.configRead(0x00, 4),
    class: device.configRead(0x08, 4) >>> 8,
    bars: firmware.bars.map(({ index, length, is64Bit, prefetchable }) => [index, length, is64Bit, prefetchable]),
  }));
  t.deepEqual(found, [
    { id: 0x11e8_1234, class: 0x00ff00, bars: [[0, 0x10_0000n, false, false]] },
    {
      id: 0x1110_1af4,
      class: 0x050000,
      bars: [
        [0, 0x100n, false, false],
        [2, 0x100_0000n, true, true],
      ],
    },
  ]);
});

test('edu copies between RAM, and from BAR to BAR', async (t) => {
  const { memory, functions } = await guest(t, ['memory', 'edu', 'memory']);
  const [from, edu, to] = functions;
  if (from === undefined || edu === undefined || to === undefined) throw new Error('the guest has three devices');
  const driver = new EduDriver(new GuestBar(edu.device, edu.firmware.addressOf(0)));
  const [source, sink] = [from.firmware.addressOf(2), to.firmware.addressOf(2) + 0x5000n];
  const text = new TextEncoder().encode('from BAR to BAR');
  memory.write(0x1000n, text);
  await driver.copy(0x1000n, source, text.length);
  await driver.copy(source, sink, text.length);
  await driver.copy(sink, 0x2000n, text.length);
  t.deepEqual(memory.read(source, text.length), text, 'the guest maps the BAR');
  t.deepEqual(memory.read(0x2000n, text.length), text);
});

test('edu interrupts by the message that the guest has set', async (t) => {
  const { functions } = await guest(t, ['edu']);
  const { device, firmware } = functions[0] ?? t.fail();
  const messages = device.configRead(0x34, 1);
  t.is(device.configRead(messages, 1), 0x05);
  await device.configWrite(messages + 4, 4, MESSAGE.address);
  await device.configWrite(messages + 8, 4, 0);
  await device.configWrite(messages + 12, 2, MESSAGE.data);
  await device.configWrite(messages + 2, 2, 1);
  const vector = device.interrupts.vector('msi');
  t.like(vector.message, { address: BigInt(MESSAGE.address), data: MESSAGE.data });
  new EduDriver(new GuestBar(device, firmware.addressOf(0))).raise();
  t.is(await vector.event.wait(), 1n);
});

test('each device has an address of its own, which is not that of a physical device', async (t) => {
  const { simulated } = await guest(
    t,
    Array.from({ length: 33 }, () => 'memory' as const),
  );
  const addresses = simulated.devices.map(({ bdf }) => bdf);
  t.is(addresses[31], 'ffff:00:1f.0');
  t.is(addresses[32], 'ffff:01:00.0');
  t.is(new Set(addresses).size, 33);
});

test('disposal closes the devices and takes the IOMMU out of guest memory', async (t) => {
  const memory = await GuestMemory.create({ ram: [RAM] });
  t.teardown(() => memory.close());
  const simulated = await simulatedDevices(memory, ['edu']);
  t.deepEqual(
    memory.inspect().targets.map(({ name }) => name),
    ['simulated IOMMU'],
  );
  await simulated[Symbol.asyncDispose]();
  t.deepEqual(memory.inspect().targets, []);
  t.throws(() => simulated.devices[0]?.config.read32(0n), { code: 'ERR_CLOSED' });
});
