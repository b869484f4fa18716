/**
 * Devices that fail or go away while they are reset, written to or closed, and a guest that asks for what can't be.
 */
import test from 'ava';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AssignedDevice,
  GuestMemory,
  PeerDmaError,
  SimulatedBus,
  SimulatedDevice,
  resetDevices,
} from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { MASTER, MEMORY, capability, command, writeBar64 } from './support/guest.ts';
import { MiB, Scene } from './support/scene.ts';

const LOW = 0xe000_0000n;
const HIGH = 0x40_0000_0000n;
const GONE = new PeerDmaError('ERR_SYSTEM', 'EIO: the device is gone');

/** Devices with their BAR 2 in guest memory. */
async function placed(scene: Scene, devices: readonly SimulatedDevice[]) {
  const all = [];
  for (const [index, device] of devices.entries()) {
    const spied = scene.spied(device);
    const assigned = await scene.assign(spied);
    await writeBar64(assigned, 2, HIGH + BigInt(index) * MiB);
    await command(assigned, MEMORY | MASTER);
    all.push({ device, spied, assigned });
  }
  scene.takeLog();
  return all as [(typeof all)[number], ...typeof all];
}

test('a device that is gone keeps no other from being reset', async (t) => {
  const scene = await Scene.create(t);
  const [gone, well] = await placed(scene, [scene.simulated(), scene.simulated()]);
  gone.spied.judge = (what) => (what.startsWith('config') ? GONE : undefined);
  await rejectsCode(t, resetDevices([gone.assigned, well?.assigned as AssignedDevice]), 'ERR_SYSTEM');
  t.is(well?.device.config.read(4n, 1)[0], 0, 'neither memory decode nor bus mastering');
  t.is(scene.takeLog().filter((entry) => entry === 'reset').length, 2);
  t.is(gone.assigned.configRead(4, 2) & MEMORY, 0, 'for the guest it is reset');
  t.deepEqual(scene.barsHeld(), []);
  gone.spied.judge = () => undefined;
});

test('a reset that fails in the middle leaves no BAR to be mapped while the hardware is off', async (t) => {
  const scene = await Scene.create(t);
  const [{ device, assigned }] = await placed(scene, [scene.simulated()]);
  await assigned.configWrite(capability(assigned, 0x11) + 2, 2, 0x8000);
  const { disconnect } = device.interrupts;
  device.interrupts.disconnect = () => {
    device.interrupts.disconnect = disconnect;
    throw new PeerDmaError('ERR_INTERRUPT_SETUP', 'refused');
  };
  await rejectsCode(t, assigned.reset(), 'ERR_INTERRUPT_SETUP');
  await assigned.configWrite(0x3c, 1, 5);
  t.is(assigned.configRead(4, 2), 0);
  t.deepEqual(scene.barsHeld(), []);
  await assigned.reset();
});

test('devices of one bus take one reset of it', async (t) => {
  const scene = await Scene.create(t);
  const bus = new SimulatedBus();
  const all = await placed(
    scene,
    [0, 1, 2].map(() => scene.simulated({ resettable: false, bus })),
  );
  await resetDevices(all.map(({ assigned }) => assigned));
  t.is(scene.takeLog().filter((entry) => entry === 'hot reset').length, 1);
});

test('a write that fails and can not be taken back says so', async (t) => {
  const scene = await Scene.create(t);
  const [{ spied, assigned }] = await placed(scene, [scene.simulated()]);
  let writes = 0;
  spied.judge = (what) => (what.startsWith('config') && writes++ < 2 ? GONE : undefined);
  const error = await rejectsCode(t, command(assigned, 0), 'ERR_ROLLBACK_FAILED');
  t.regex(error.message, /EIO/);
});

test('a failed reset takes BARs out of guest memory again before it restores the device', async (t) => {
  const scene = await Scene.create(t);
  const [{ spied, assigned }] = await placed(scene, [scene.simulated()]);
  assigned.interrupts.vector('intx').onInterrupt(() => {});
  let refusals = 1;
  spied.judge = (what) => (what === 'connect intx' && refusals-- > 0 ? GONE : undefined);
  await rejectsCode(t, assigned.configWrite(capability(assigned, 0x10) + 8, 2, 0x8000), 'ERR_INTERRUPT_SETUP');
  t.deepEqual(scene.takeLog(), [
    'unmap 0x4000000000..0x4000100000',
    'config 0x74 = 0x8000',
    'map 0x4000000000..0x4000100000 rw',
    'unmap 0x4000000000..0x4000100000',
    'config 0x4 = 0x6',
    'config 0x44 = 0x0',
    'map 0x4000000000..0x4000100000 rw',
  ]);
});

test('the ROM drops what a guest writes to it', async (t) => {
  const scene = await Scene.create(t);
  const device = scene.simulated({ rom: { length: 0x1000n, contents: Uint8Array.of(0x55, 0xaa) } });
  const assigned = await scene.assign(device);
  await assigned.configWrite(0x30, 4, Number(LOW) + 1);
  await command(assigned, MEMORY);
  assigned.mmioWrite(LOW, new Uint8Array(8));
  t.deepEqual(assigned.mmioRead(LOW, 2), Uint8Array.of(0x55, 0xaa));
});

test('a device that is closed while guest memory closes is closed when its BARs are out of every target', async (t) => {
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

test('guest memory that is closed lets its devices be switched off and reset', async (t) => {
  const scene = await Scene.create(t);
  const [one, other] = await placed(scene, [scene.simulated(), scene.simulated()]);
  await scene.memory.close();
  await command(one.assigned, 0);
  t.is(one.device.config.read(4n, 1)[0], 0);
  await other?.assigned.reset();
  t.is(other?.device.config.read(4n, 1)[0], 0);
  await rejectsCode(t, command(one.assigned, MEMORY), 'ERR_CLOSED');
});

test('a BAR that was taken away by another hand is not said to be there', async (t) => {
  const scene = await Scene.create(t);
  const [{ assigned }] = await placed(scene, [scene.simulated()]);
  t.deepEqual(
    assigned
      .status()
      .find(({ bar }) => bar === 2)
      ?.mapped.map(String),
    ['0x4000000000..0x4000100000'],
  );
  await scene.memory.close();
  t.deepEqual(assigned.status().find(({ bar }) => bar === 2)?.mapped, []);
});

test('what is no device, no list, or was closed is an error', async (t) => {
  const scene = await Scene.create(t);
  const { memory } = scene;
  for (const device of [undefined, 5, {}, { bdf: '0000:00:04.0' }]) {
    await rejectsCode(t, AssignedDevice.create({ device: device as never, memory }), 'ERR_INVALID_ARGUMENT');
  }
  await rejectsCode(t, resetDevices(undefined as never), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, resetDevices(5 as never), 'ERR_INVALID_ARGUMENT');
  const device = scene.simulated();
  const assigned = await scene.assign(device);
  await assigned.close();
  await rejectsCode(t, AssignedDevice.create({ device, memory }), 'ERR_CLOSED');
  await rejectsCode(t, resetDevices([assigned]), 'ERR_CLOSED');
});
