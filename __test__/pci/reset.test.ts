/**
 * Devices are reset alone and together: nobody reaches them before the hardware is reset, and they are as after power-on.
 */
import test from 'ava';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type AssignedDevice,
  PeerDmaError,
  type PhysicalFunction,
  SimulatedBus,
  type SimulatedDevice,
  resetDevices,
} from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { until } from '../support/until.ts';
import { MASTER, MEMORY, barRegister, capability, command, writeBar64 } from './support/guest.ts';
import { MiB, Scene } from './support/scene.ts';

const HIGH = 0x40_0000_0000n;

/** Gives devices to the guest, which places and switches on their BARs 2, one after the other. */
async function inReach(scene: Scene, devices: readonly SimulatedDevice[]): Promise<AssignedDevice[]> {
  const assigned: AssignedDevice[] = [];
  for (const [index, device] of devices.entries()) {
    const one = await scene.assign(scene.spied(device));
    await writeBar64(one, 2, HIGH + BigInt(index) * MiB);
    await command(one, MEMORY);
    assigned.push(one);
  }
  return assigned;
}

test('a reset takes the BARs away, then resets the hardware; the guest finds it as after power-on', async (t) => {
  const scene = await Scene.create(t);
  const device = scene.simulated();
  const assigned = await scene.assign(scene.spied(device));
  await writeBar64(assigned, 2, HIGH);
  await assigned.configWrite(0x3c, 1, 11);
  await command(assigned, MEMORY | MASTER);
  scene.takeLog();
  await assigned.reset();
  const log = scene.takeLog();
  t.is(log[0], 'unmap 0x4000000000..0x4000100000');
  t.true(log.indexOf('config 0x4 = 0x0') < log.indexOf('reset'), 'quiet before');
  t.is(assigned.configRead(0x04, 2), 0);
  t.is(assigned.configRead(barRegister(2), 4) & ~0xf, 0);
  t.is(assigned.configRead(barRegister(3), 4), 0);
  t.is(assigned.configRead(0x3c, 1), 0);
  t.deepEqual(scene.barsHeld(), []);
  t.false(scene.reaches(HIGH, device, 2));

  await writeBar64(assigned, 2, HIGH + MiB);
  await command(assigned, MEMORY);
  t.true(scene.reaches(HIGH + MiB, device, 2), 'it works again');
});

test('a device that sleeps is awake after a reset, also where the hardware can not be reset', async (t) => {
  const scene = await Scene.create(t);
  for (const resettable of [true, false]) {
    const device = scene.simulated({ resettable });
    const assigned = await scene.assign(device);
    const power = capability(assigned, 0x01) + 4;
    await writeBar64(assigned, 2, HIGH);
    await command(assigned, MEMORY | MASTER);
    await assigned.configWrite(power, 2, 3);
    if (resettable) await assigned.reset();
    else await rejectsCode(t, assigned.reset(), 'ERR_RESET_UNSUPPORTED');
    t.is(assigned.configRead(power, 2) & 3, 0);
    t.is(device.config.read(4n, 1)[0], 0);
    await writeBar64(assigned, 2, HIGH);
    await command(assigned, MEMORY);
    t.true(scene.reaches(HIGH, device, 2));
    await assigned.close();
  }
});

test('a device that can not be reset says so, and is quiet', async (t) => {
  const scene = await Scene.create(t);
  const device = scene.simulated({ resettable: false });
  const assigned = await scene.assign(scene.spied(device));
  await writeBar64(assigned, 2, HIGH);
  await command(assigned, MEMORY | MASTER);
  const error = await rejectsCode(t, assigned.reset(), 'ERR_RESET_UNSUPPORTED');
  t.regex(error.message, new RegExp(device.bdf));
  t.is(device.config.read(4n, 1)[0], 0, 'neither memory decode nor bus mastering');
  t.deepEqual(scene.barsHeld(), []);
  t.is(assigned.configRead(barRegister(2), 4) & ~0xf, 0);
});

test('devices of one bus are reset together where they can not be alone', async (t) => {
  const scene = await Scene.create(t);
  const bus = new SimulatedBus();
  const devices = [0, 1].map(() => scene.simulated({ resettable: false, bus }));
  const assigned = await inReach(scene, devices);
  scene.takeLog();
  const [first] = assigned;
  if (first === undefined) throw new Error('there are two');
  const alone = await rejectsCode(t, first.reset(), 'ERR_RESET_UNSUPPORTED');
  t.regex(alone.message, new RegExp(devices[1]?.bdf ?? ''), 'the other device on the bus is named');
  t.is(scene.barsHeld().length, 1, 'and keeps its BAR');
  await resetDevices(assigned);
  const log = scene.takeLog();
  t.true(log.includes('hot reset'));
  t.true(log.lastIndexOf('unmap 0x4000100000..0x4000200000') < log.lastIndexOf('hot reset'));
  t.deepEqual(scene.barsHeld(), []);
  for (const one of assigned) t.is(one.configRead(0x04, 2), 0);
});

test('resets the bus of a device that does not return from its own reset, and names it if that fails', async (t) => {
  const scene = await Scene.create(t);
  const lost = (device: SimulatedDevice): PhysicalFunction => {
    const spied = scene.spied(device);
    const error = new PeerDmaError('ERR_BAD_CONFIG_SPACE', `${device.bdf} did not return from its reset`);
    spied.judge = (what) => (what === 'reset' ? error : undefined);
    return spied;
  };
  const onBus = await scene.assign(lost(scene.simulated({ resettable: false, bus: new SimulatedBus() })));
  scene.takeLog();
  await onBus.reset();
  t.true(scene.takeLog().includes('hot reset'));
  const device = scene.simulated({ resettable: false });
  const alone = await scene.assign(lost(device));
  const error = await rejectsCode(t, alone.reset(), 'ERR_BAD_CONFIG_SPACE');
  t.regex(error.message, new RegExp(`${device.bdf} did not return from its reset`));
});

test('a reset of the VM resets all that can be, quiets the rest, and names it', async (t) => {
  const scene = await Scene.create(t);
  const stubborn = [0, 1].map(() => scene.simulated({ resettable: false }));
  const willing = scene.simulated();
  const assigned: AssignedDevice[] = [];
  for (const device of [stubborn[0], willing, stubborn[1]]) {
    if (device === undefined) continue;
    const one = await scene.assign(scene.spied(device));
    await writeBar64(one, 2, HIGH + BigInt(assigned.length) * MiB);
    await command(one, MEMORY | MASTER);
    assigned.push(one);
  }
  scene.takeLog();
  const error = await rejectsCode(t, resetDevices(assigned), 'ERR_RESET_UNSUPPORTED');
  for (const { bdf } of stubborn) t.regex(error.message, new RegExp(bdf));
  t.deepEqual(scene.barsHeld(), []);
  for (const { device } of assigned) t.is(device.config.read(4n, 1)[0], 0);
  await resetDevices([]);
});

test('a reset that can not take a BAR away changes nothing', async (t) => {
  const scene = await Scene.create(t);
  const devices = [scene.simulated(), scene.simulated()];
  const assigned = await inReach(scene, devices);
  scene.recorder.judge = ({ op, range }) => (op === 'unmap' && range.start > HIGH ? new Error('stuck') : undefined);
  scene.takeLog();
  await rejectsCode(t, resetDevices(assigned), 'ERR_UNMAP_FAILED');
  t.false(scene.takeLog().some((entry) => entry.includes('reset')));
  t.deepEqual(
    assigned.map((one) => one.configRead(0x04, 2)),
    [MEMORY, MEMORY],
  );
  t.true(scene.reaches(HIGH, devices[0] as PhysicalFunction, 2));
  scene.recorder.judge = () => undefined;
  scene.recorder.loseAll();
  await scene.memory.dmaMappers.targetClosed(scene.recorder);
});

test('resets and writes of several callers at once come one after the other', async (t) => {
  const scene = await Scene.create(t);
  const [one, other] = [await scene.assign(), await scene.assign()];
  const all: Promise<void>[] = [];
  for (let round = 0; round < 5; round++) {
    all.push(resetDevices([one, other]), writeBar64(one, 2, HIGH), command(other, MEMORY));
    all.push(resetDevices([other, one, other]), command(one, MEMORY));
  }
  await Promise.all(all);
  await command(one, MEMORY);
  await one.reset();
  t.is(one.configRead(0x04, 2), 0);
  await rejectsCode(t, resetDevices([{} as never]), 'ERR_INVALID_ARGUMENT');
  await resetDevices([one, one]);
});

test('the pin interrupts after a reset, though an interrupt was in service before it', async (t) => {
  const scene = await Scene.create(t);
  const resets: [string, (device: AssignedDevice) => Promise<void>][] = [
    ['reset', (device) => device.reset()],
    ['function-level reset', (device) => device.configWrite(capability(device, 0x10) + 8, 2, 0x8000)],
  ];
  for (const [what, reset] of resets) {
    const device = scene.simulated();
    const assigned = await scene.assign(device);
    let count = 0n;
    assigned.interrupts.vector('intx').onInterrupt((more) => (count += more));
    device.raise('intx');
    await until(() => count === 1n, what);
    await reset(assigned); // nobody has unmasked the pin
    device.lowerIntx();
    device.raise('intx');
    await until(() => count === 2n, `${what}: once more`);
    await sleep(20);
    t.is(count, 2n, `${what}: and no more`);
    await assigned.close();
  }
});
