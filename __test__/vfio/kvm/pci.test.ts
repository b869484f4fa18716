/**
 * A small guest on a PCI bus: it places, moves and accesses the BARs of a simulated device.
 */
import test, { type ExecutionContext } from 'ava';
import { AddressRange, AssignedDevice, type GuestMemory, PciHostBridge } from '../../../ts/index.ts';
import { SimulatedDevice } from '../../../ts/testing.ts';
import { countingGuest, MESSAGE } from './support/interrupts.ts';
import { Code } from './support/machine-code.ts';
import { BAR0, COMMAND, CONFIG_ADDRESS, CONFIG_DATA, MEMORY, configure } from './support/pci-code.ts';
import { END_PORT, FREE, type SmallGuest, smallGuest } from './support/small-guest.ts';

const VALUE = 0x8877_6655_4433_2211n;
const WINDOW = AddressRange.of(0xc000_0000n, 0x1000_0000n);
const BAR = 0xc000_0000n;
const MOVED = 0xc800_0000n;
const BAR_LENGTH = 0x4000n;
/** The MSI-X table, in a page of its own. */
const TABLE = 0x1000n;

/** The device's number on the bus. */
const DEVICE = 1;

async function attachDevice(
  t: ExecutionContext,
  { vm, memory }: Pick<SmallGuest, 'vm' | 'memory'>,
): Promise<{
  bridge: PciHostBridge;
  device: AssignedDevice;
  physical: SimulatedDevice;
}> {
  const bridge = new PciHostBridge({ memory, windows: [WINDOW] });
  vm.attach(bridge);
  const physical = new SimulatedDevice({
    bdf: '0000:00:04.0',
    bars: [{ index: 0, length: BAR_LENGTH }],
    msix: { vectors: 2, bar: 0, tableOffset: TABLE },
  });
  const device = await AssignedDevice.create({ device: physical, memory });
  bridge.add('00:01.0', device);
  t.teardown(async () => {
    bridge.remove('00:01.0');
    await device.close();
  });
  return { bridge, device, physical };
}

const barOf = (memory: GuestMemory): readonly string[] =>
  memory
    .inspect()
    .flat.filter(({ kind }) => kind === 'device')
    .map(({ start }) => start);

test.serial('a guest places a BAR, writes it without an exit, and moves it', async (t) => {
  const code = configure(configure(new Code(), DEVICE, BAR0, BAR), DEVICE, COMMAND, MEMORY);
  code
    .rax(VALUE)
    .rbx(BAR)
    .store(8)
    .rbx(BAR + TABLE)
    .load(4)
    .out(END_PORT);
  configure(configure(configure(code, DEVICE, COMMAND, 0n), DEVICE, BAR0, MOVED), DEVICE, COMMAND, MEMORY);
  code
    .rbx(MOVED)
    .load(8)
    .rbx(FREE)
    .store(8)
    .rbx(BAR)
    .load(8)
    .rbx(FREE + 8n)
    .store(8)
    .out(END_PORT);
  const guest = await smallGuest(t, code);
  const { vm, memory } = guest;
  const { physical } = await attachDevice(t, guest);
  t.is(await vm.run(), 'end');
  t.deepEqual(barOf(memory), ['0xc0000000', '0xc0002000']);
  t.is(vm.inspect().slots, 3);
  t.deepEqual(physical.regions[0]?.read(0n, 8), new Uint8Array(BigUint64Array.of(VALUE).buffer));
  t.deepEqual(vm.inspect().exits, { port: 5, memory: 1, unclaimed: 0 }); // of memory, the table of MSI-X
  t.is(await vm.run(), 'end');
  t.is(memory.read64(FREE), VALUE);
  t.is(memory.read64(FREE + 8n), 0xffff_ffff_ffff_ffffn);
  t.deepEqual(barOf(memory), ['0xc8000000', '0xc8002000']);
});

test.serial('functions that do not exist read as ones', async (t) => {
  const code = new Code().rax(0x8000_f800n).out(CONFIG_ADDRESS, 4).in(CONFIG_DATA, 4).rbx(FREE).store(4);
  const guest = await smallGuest(
    t,
    code
      .rax(0x8000_0000n)
      .out(CONFIG_ADDRESS, 4)
      .in(CONFIG_DATA, 4)
      .rbx(FREE + 8n)
      .store(4)
      .out(END_PORT),
  );
  await attachDevice(t, guest);
  t.is(await guest.vm.run(), 'end');
  t.is(guest.memory.read32(FREE), 0xffff_ffff);
  t.is(guest.memory.read32(FREE + 8n), 0x0008_1b36);
});

test.serial('MSI-X of a device on the bus interrupts the guest, and stops with its removal', async (t) => {
  const guest = await countingGuest(t);
  const { bridge, device, physical } = await attachDevice(t, guest);
  await device.configWrite(BAR0, 4, Number(BAR));
  await device.configWrite(COMMAND, 2, 6);
  const entry = new DataView(new ArrayBuffer(16));
  entry.setUint32(0, Number(MESSAGE.address), true);
  entry.setUint32(8, MESSAGE.data, true);
  device.mmioWrite(BAR + TABLE, new Uint8Array(entry.buffer));
  await device.configWrite(device.configRead(0x34, 1) + 2, 2, 0x8000);
  physical.raise('msix', 0);
  await guest.counts(1n);
  bridge.remove('00:01.0');
  physical.raise('msix', 0);
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.is(guest.count(), 1n);
});

test.serial('a device that is removed while the guest runs is gone from the slots before it is closed', async (t) => {
  const code = configure(configure(new Code(), DEVICE, BAR0, BAR), DEVICE, COMMAND, MEMORY).out(0x510);
  const loop = code.length;
  code.rbx(BAR).load(8).rbx(FREE).store(8).jump(loop);
  const guest = await smallGuest(t, code);
  const { vm, memory } = guest;
  const { bridge, device, physical } = await attachDevice(t, guest);
  const placed = new Promise<void>((resolve) => vm.ports.add(0x510, 1, { read: () => 0, write: () => resolve() }));
  const run = vm.run();
  await placed;
  memory.write64(BAR, VALUE);
  bridge.remove('00:01.0');
  await device.close();
  t.is(vm.inspect().slots, 1);
  t.deepEqual(barOf(memory), []);
  t.throws(() => physical.regions[0]?.read(0n, 8));
  while (memory.read64(FREE) !== 0xffff_ffff_ffff_ffffn) await new Promise((resolve) => setImmediate(resolve));
  vm.stop('removed');
  t.is(await run, 'removed');
});
