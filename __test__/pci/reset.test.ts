/**
 * Resets of one and of several devices. BARs are unmapped before the hardware is reset, and the power-on state follows.
 */
import test from 'ava';
import { setTimeout as sleep } from 'node:timers/promises';
import { type AssignedDevice, PeerDmaError, type PhysicalFunction, resetDevices } from '../../ts/index.ts';
import { SimulatedBus, type SimulatedDevice } from '../../ts/testing.ts';
import { rejectsCode } from '../support/errors.ts';
import { until } from '../support/until.ts';
import { MASTER, MEMORY, barRegister, capability, command, writeBar64 } from './support/guest.ts';
import { MiB, Fixture } from './support/fixture.ts';

const HIGH = 0x40_0000_0000n;

/** Assigns devices, and maps their BARs 2 one after the other. */
async function assignReachable(fixture: Fixture, devices: readonly SimulatedDevice[]): Promise<AssignedDevice[]> {
  const assigned: AssignedDevice[] = [];
  for (const [index, device] of devices.entries()) {
    const one = await fixture.assign(fixture.spy(device));
    await writeBar64(one, 2, HIGH + BigInt(index) * MiB);
    await command(one, MEMORY);
    assigned.push(one);
  }
  return assigned;
}

test('unmaps the BARs, resets the hardware, and shows the guest the power-on state', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(fixture.spy(device));
  await writeBar64(assigned, 2, HIGH);
  await assigned.configWrite(0x3c, 1, 11);
  await command(assigned, MEMORY | MASTER);
  fixture.drainLog();
  await assigned.reset();
  const log = fixture.drainLog();
  t.is(log[0], 'unmap 0x4000000000..0x4000100000');
  t.true(log.indexOf('config 0x4 = 0x0') < log.indexOf('reset'), 'quiet before');
  t.is(assigned.configRead(0x04, 2), 0);
  t.is(assigned.configRead(barRegister(2), 4) & ~0xf, 0);
  t.is(assigned.configRead(barRegister(3), 4), 0);
  t.is(assigned.configRead(0x3c, 1), 0);
  t.deepEqual(fixture.mappedBars(), []);
  t.false(fixture.reaches(HIGH, device, 2));

  await writeBar64(assigned, 2, HIGH + MiB);
  await command(assigned, MEMORY);
  t.true(fixture.reaches(HIGH + MiB, device, 2), 'it works again');
});

test('wakes a sleeping device by a reset, even if its hardware cannot be reset', async (t) => {
  const fixture = await Fixture.create(t);
  for (const resettable of [true, false]) {
    const device = fixture.simulated({ resettable });
    const assigned = await fixture.assign(device);
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
    t.true(fixture.reaches(HIGH, device, 2));
    await assigned.close();
  }
});

test('reports a device that cannot be reset, and leaves it quiet', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated({ resettable: false });
  const assigned = await fixture.assign(fixture.spy(device));
  await writeBar64(assigned, 2, HIGH);
  await command(assigned, MEMORY | MASTER);
  const error = await rejectsCode(t, assigned.reset(), 'ERR_RESET_UNSUPPORTED');
  t.regex(error.message, new RegExp(device.bdf));
  t.is(device.config.read(4n, 1)[0], 0, 'neither memory decode nor bus mastering');
  t.deepEqual(fixture.mappedBars(), []);
  t.is(assigned.configRead(barRegister(2), 4) & ~0xf, 0);
});

test('resets devices together through their bus if they cannot be reset alone', async (t) => {
  const fixture = await Fixture.create(t);
  const bus = new SimulatedBus();
  const devices = [0, 1].map(() => fixture.simulated({ resettable: false, bus }));
  const assigned = await assignReachable(fixture, devices);
  fixture.drainLog();
  const [first] = assigned;
  if (first === undefined) throw new Error('there are two');
  const alone = await rejectsCode(t, first.reset(), 'ERR_RESET_UNSUPPORTED');
  t.regex(alone.message, new RegExp(devices[1]?.bdf ?? ''), 'the other device on the bus is named');
  t.is(fixture.mappedBars().length, 1, 'and keeps its BAR');
  await resetDevices(assigned);
  const log = fixture.drainLog();
  t.true(log.includes('hot reset'));
  t.true(log.lastIndexOf('unmap 0x4000100000..0x4000200000') < log.lastIndexOf('hot reset'));
  t.deepEqual(fixture.mappedBars(), []);
  for (const one of assigned) t.is(one.configRead(0x04, 2), 0);
});

test('resets the bus of a device that does not respond after its own reset, and names it if that fails', async (t) => {
  const fixture = await Fixture.create(t);
  const lost = (device: SimulatedDevice): PhysicalFunction => {
    const spy = fixture.spy(device);
    const error = new PeerDmaError('ERR_BAD_CONFIG_SPACE', `${device.bdf} did not return from its reset`);
    spy.failWith = (what) => (what === 'reset' ? error : undefined);
    return spy;
  };
  const onBus = await fixture.assign(lost(fixture.simulated({ resettable: false, bus: new SimulatedBus() })));
  fixture.drainLog();
  await onBus.reset();
  t.true(fixture.drainLog().includes('hot reset'));
  const device = fixture.simulated({ resettable: false });
  const alone = await fixture.assign(lost(device));
  const error = await rejectsCode(t, alone.reset(), 'ERR_BAD_CONFIG_SPACE');
  t.regex(error.message, new RegExp(`${device.bdf} did not return from its reset`));
});

test('resets all devices that can be reset, quiets the others, and names them', async (t) => {
  const fixture = await Fixture.create(t);
  const stubborn = [0, 1].map(() => fixture.simulated({ resettable: false }));
  const willing = fixture.simulated();
  const assigned: AssignedDevice[] = [];
  for (const device of [stubborn[0], willing, stubborn[1]]) {
    if (device === undefined) continue;
    const one = await fixture.assign(fixture.spy(device));
    await writeBar64(one, 2, HIGH + BigInt(assigned.length) * MiB);
    await command(one, MEMORY | MASTER);
    assigned.push(one);
  }
  fixture.drainLog();
  const error = await rejectsCode(t, resetDevices(assigned), 'ERR_RESET_UNSUPPORTED');
  for (const { bdf } of stubborn) t.regex(error.message, new RegExp(bdf));
  t.deepEqual(fixture.mappedBars(), []);
  for (const { device } of assigned) t.is(device.config.read(4n, 1)[0], 0);
  await resetDevices([]);
});

test('changes nothing if a BAR cannot be unmapped for a reset', async (t) => {
  const fixture = await Fixture.create(t);
  const devices = [fixture.simulated(), fixture.simulated()];
  const assigned = await assignReachable(fixture, devices);
  fixture.recorder.judge = ({ op, range }) => (op === 'unmap' && range.start > HIGH ? new Error('stuck') : undefined);
  fixture.drainLog();
  await rejectsCode(t, resetDevices(assigned), 'ERR_UNMAP_FAILED');
  t.false(fixture.drainLog().some((entry) => entry.includes('reset')));
  t.deepEqual(
    assigned.map((one) => one.configRead(0x04, 2)),
    [MEMORY, MEMORY],
  );
  t.true(fixture.reaches(HIGH, devices[0] as PhysicalFunction, 2));
  fixture.recorder.judge = () => undefined;
  fixture.recorder.closeWithMappings();
  await fixture.memory.dmaMappers.targetClosed(fixture.recorder);
});

test('runs concurrent resets and writes one after the other', async (t) => {
  const fixture = await Fixture.create(t);
  const [one, other] = [await fixture.assign(), await fixture.assign()];
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

test('interrupts by the pin after a reset, even if an interrupt was in service before', async (t) => {
  const fixture = await Fixture.create(t);
  const resets: [string, (device: AssignedDevice) => Promise<void>][] = [
    ['reset', (device) => device.reset()],
    ['function-level reset', (device) => device.configWrite(capability(device, 0x10) + 8, 2, 0x8000)],
  ];
  for (const [what, reset] of resets) {
    const device = fixture.simulated();
    const assigned = await fixture.assign(device);
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
