/** Devices that fail or disappear during resets, writes and closing, and invalid requests of a guest. */
import test from 'ava';
import { setTimeout as sleep } from 'node:timers/promises';
import { AssignedDevice, GuestMemory, PeerDmaError, resetDevices } from '../../ts/index.ts';
import { SimulatedBus, SimulatedDevice } from '../../ts/testing.ts';
import { rejectsCode } from '../support/errors.ts';
import { MASTER, MEMORY, capability, command, writeBar64 } from './support/guest.ts';
import { MiB, Fixture } from './support/fixture.ts';

const LOW = 0xe000_0000n;
const HIGH = 0x40_0000_0000n;
const GONE = new PeerDmaError('ERR_SYSTEM', 'EIO: the device is gone');

/** Assigns devices and maps their BAR 2 into guest memory. */
async function assignAndPlace(fixture: Fixture, devices: readonly SimulatedDevice[]) {
  const all = [];
  for (const [index, device] of devices.entries()) {
    const spy = fixture.spy(device);
    const assigned = await fixture.assign(spy);
    await writeBar64(assigned, 2, HIGH + BigInt(index) * MiB);
    await command(assigned, MEMORY | MASTER);
    all.push({ device, spy, assigned });
  }
  fixture.drainLog();
  return all as [(typeof all)[number], ...typeof all];
}

test('resets the other devices when one is gone', async (t) => {
  const fixture = await Fixture.create(t);
  const [gone, well] = await assignAndPlace(fixture, [fixture.simulated(), fixture.simulated()]);
  gone.spy.failWith = (what) => (what.startsWith('config') ? GONE : undefined);
  await rejectsCode(t, resetDevices([gone.assigned, well?.assigned as AssignedDevice]), 'ERR_SYSTEM');
  t.is(well?.device.config.read(4n, 1)[0], 0, 'neither memory decode nor bus mastering');
  t.is(fixture.drainLog().filter((entry) => entry === 'reset').length, 2);
  t.is(gone.assigned.configRead(4, 2) & MEMORY, 0, 'for the guest it is reset');
  t.deepEqual(fixture.mappedBars(), []);
  gone.spy.failWith = () => undefined;
});

test('keeps the BARs unmapped while the hardware is disabled, if a reset fails halfway', async (t) => {
  const fixture = await Fixture.create(t);
  const [{ device, assigned }] = await assignAndPlace(fixture, [fixture.simulated()]);
  await assigned.configWrite(capability(assigned, 0x11) + 2, 2, 0x8000);
  const { disconnect } = device.interrupts;
  device.interrupts.disconnect = () => {
    device.interrupts.disconnect = disconnect;
    throw new PeerDmaError('ERR_INTERRUPT_SETUP', 'refused');
  };
  await rejectsCode(t, assigned.reset(), 'ERR_INTERRUPT_SETUP');
  await assigned.configWrite(0x3c, 1, 5);
  t.is(assigned.configRead(4, 2), 0);
  t.deepEqual(fixture.mappedBars(), []);
  await assigned.reset();
});

test('resets devices of one bus by one bus reset', async (t) => {
  const fixture = await Fixture.create(t);
  const bus = new SimulatedBus();
  const all = await assignAndPlace(
    fixture,
    [0, 1, 2].map(() => fixture.simulated({ resettable: false, bus })),
  );
  await resetDevices(all.map(({ assigned }) => assigned));
  t.is(fixture.drainLog().filter((entry) => entry === 'hot reset').length, 1);
});

test('reports a failed write that cannot be rolled back', async (t) => {
  const fixture = await Fixture.create(t);
  const [{ spy, assigned }] = await assignAndPlace(fixture, [fixture.simulated()]);
  let writes = 0;
  spy.failWith = (what) => (what.startsWith('config') && writes++ < 2 ? GONE : undefined);
  const error = await rejectsCode(t, command(assigned, 0), 'ERR_ROLLBACK_FAILED');
  t.regex(error.message, /EIO/);
});

test('unmaps BARs after a failed reset before it restores the device', async (t) => {
  const fixture = await Fixture.create(t);
  const [{ spy, assigned }] = await assignAndPlace(fixture, [fixture.simulated()]);
  assigned.interrupts.vector('intx').onInterrupt(() => {});
  let refusals = 1;
  spy.failWith = (what) => (what === 'connect intx' && refusals-- > 0 ? GONE : undefined);
  await rejectsCode(t, assigned.configWrite(capability(assigned, 0x10) + 8, 2, 0x8000), 'ERR_INTERRUPT_SETUP');
  t.deepEqual(fixture.drainLog(), [
    'unmap 0x4000000000..0x4000100000',
    'config 0x74 = 0x8000',
    'map 0x4000000000..0x4000100000 rw',
    'unmap 0x4000000000..0x4000100000',
    'config 0x4 = 0x6',
    'config 0x44 = 0x0',
    'map 0x4000000000..0x4000100000 rw',
  ]);
});

test('drops guest writes to the ROM', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated({ rom: { length: 0x1000n, contents: Uint8Array.of(0x55, 0xaa) } });
  const assigned = await fixture.assign(device);
  await assigned.configWrite(0x30, 4, Number(LOW) + 1);
  await command(assigned, MEMORY);
  assigned.mmioWrite(LOW, new Uint8Array(8));
  t.deepEqual(assigned.mmioRead(LOW, 2), Uint8Array.of(0x55, 0xaa));
});

test('closes a device while guest memory closes, after its BARs are unmapped from every target', async (t) => {
  const memory = await GuestMemory.create({ ram: [{ start: 0x10_0000n, length: 4n * MiB }], addressWidth: 40 });
  const held = new Set<string>();
  await memory.dmaMappers.addDmaMapper({
    name: 'slow',
    mapDma: ({ range }) => void held.add(String(range)),
    unmapDma: async (range) => {
      await sleep(20);
      held.delete(String(range));
    },
  });
  const device = new SimulatedDevice({ bdf: '0000:00:05.0', bars: [{ index: 2, length: MiB, kind: 'memory64' }] });
  const heldAtClose: string[] = [];
  const close = device.close.bind(device);
  device.close = () => {
    heldAtClose.push(...held);
    return close();
  };
  const assigned = await AssignedDevice.create({ device, memory });
  await writeBar64(assigned, 2, HIGH);
  await command(assigned, MEMORY);
  t.is(held.size, 2);
  const closing = memory.close();
  await assigned.close();
  t.deepEqual(heldAtClose, []);
  await closing;
});

test('disables and resets devices after guest memory was closed', async (t) => {
  const fixture = await Fixture.create(t);
  const [one, other] = await assignAndPlace(fixture, [fixture.simulated(), fixture.simulated()]);
  await fixture.memory.close();
  await command(one.assigned, 0);
  t.is(one.device.config.read(4n, 1)[0], 0);
  await other?.assigned.reset();
  t.is(other?.device.config.read(4n, 1)[0], 0);
  await rejectsCode(t, command(one.assigned, MEMORY), 'ERR_CLOSED');
});

test('does not report a BAR as mapped that another caller has unmapped', async (t) => {
  const fixture = await Fixture.create(t);
  const [{ assigned }] = await assignAndPlace(fixture, [fixture.simulated()]);
  t.deepEqual(
    assigned
      .status()
      .find(({ bar }) => bar === 2)
      ?.mapped.map(String),
    ['0x4000000000..0x4000100000'],
  );
  await fixture.memory.close();
  t.deepEqual(assigned.status().find(({ bar }) => bar === 2)?.mapped, []);
});

test('rejects invalid devices, invalid lists and closed devices', async (t) => {
  const fixture = await Fixture.create(t);
  const { memory } = fixture;
  for (const device of [undefined, 5, {}, { bdf: '0000:00:04.0' }]) {
    await rejectsCode(t, AssignedDevice.create({ device: device as never, memory }), 'ERR_INVALID_ARGUMENT');
  }
  await rejectsCode(t, resetDevices(undefined as never), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, resetDevices(5 as never), 'ERR_INVALID_ARGUMENT');
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  await assigned.close();
  await rejectsCode(t, AssignedDevice.create({ device, memory }), 'ERR_CLOSED');
  await rejectsCode(t, resetDevices([assigned]), 'ERR_CLOSED');
});
