/**
 * Interrupts of a real device, delivered as the guest has programmed them.
 */
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import type { ExecutionContext } from 'ava';
import { setTimeout as sleep } from 'node:timers/promises';
import { testWith } from '../support/devices.ts';
import { repetitions } from '../support/repetitions.ts';
import { until } from '../../support/until.ts';
import type { Engine } from './support/engine.ts';
import { Guest } from './support/guest.ts';

const MSI = 0x05;
const MESSAGE = { address: 0xfee0_1000n, data: 0x4021 };
/** The bit of Command that disables the pin. */
const PIN_OFF = 0x400;

const MESSAGES = repetitions(2_000);
const BURST = 200;
/** Milliseconds within which an interrupt would arrive. */
const SILENCE = 200;

/** The guest's driver programs the message; Multiple Message Enable stays 0: one vector. */
async function programMessage({ assigned: { device, firmware } }: Engine): Promise<void> {
  const at = firmware.capability(MSI);
  const control = device.configRead(at + 2, 2);
  const is64Bit = (control & 0x80) !== 0;
  await device.configWrite(at + 4, 4, Number(MESSAGE.address));
  if (is64Bit) await device.configWrite(at + 8, 4, 0);
  await device.configWrite(at + (is64Bit ? 12 : 8), 2, MESSAGE.data);
}

async function switchMessages({ assigned: { device, firmware } }: Engine, on: boolean): Promise<void> {
  const control = firmware.capability(MSI) + 2;
  await device.configWrite(control, 2, (device.configRead(control, 2) & ~1) | (on ? 1 : 0));
}

/** An edu whose interrupts are all acknowledged, now and when the test ends. */
async function acknowledgedEngine(t: ExecutionContext, bdf: string): Promise<Engine> {
  const engine = await (await Guest.start(t)).engine(bdf);
  engine.driver.acknowledge(0xffff_ffff);
  t.teardown(() => engine.driver.acknowledge(0xffff_ffff));
  return engine;
}

testWith(
  { edu: 1 },
  'a message that the guest has programmed calls the callback while it is enabled',
  async (t, { edu: [bdf = ''] }) => {
    const engine = await acknowledgedEngine(t, bdf);
    const { driver, assigned } = engine;
    const { device } = assigned;
    const vector = device.interrupts.vector('msi');
    const counts: bigint[] = [];
    vector.onInterrupt((count) => counts.push(count));
    t.false(vector.enabled);
    await programMessage(engine);
    driver.raise();
    driver.acknowledge();
    await sleep(SILENCE);
    t.deepEqual(counts, [], 'not on');

    await switchMessages(engine, true);
    t.deepEqual([vector.enabled, vector.message], [true, MESSAGE]);
    driver.raise(1);
    await until(() => counts.length === 1, 'the first message arrives');
    driver.raise(2);
    await until(() => counts.length === 2, 'the second too, without acknowledgement');
    t.deepEqual(counts, [1n, 1n]);
    driver.acknowledge(3);

    await switchMessages(engine, false);
    t.false(vector.enabled);
    driver.raise();
    driver.acknowledge();
    await sleep(SILENCE);
    t.is(counts.length, 2, 'off');
    await switchMessages(engine, true);
    driver.raise();
    await until(() => counts.length === 3, 'on again');
    driver.acknowledge();
  },
);

testWith({ edu: 1 }, 'the pin calls a callback, and is masked until it is served', async (t, { edu: [bdf = ''] }) => {
  const { driver, assigned } = await acknowledgedEngine(t, bdf);
  const { device } = assigned;
  const { interrupts } = device;
  let count = 0n;
  interrupts.vector('intx').onInterrupt((more) => {
    count += more;
  });
  driver.raise(1);
  await until(() => count === 1n, 'the pin interrupts');
  driver.raise(2);
  await sleep(SILENCE);
  t.is(count, 1n, 'masked by itself');
  driver.acknowledge(1);
  interrupts.unmaskIntx();
  await until(() => count === 2n, 'the second cause is still there');
  driver.acknowledge(2);
  interrupts.unmaskIntx();
  await sleep(SILENCE);
  t.is(count, 2n, 'served');

  await device.configWrite(4, 2, device.configRead(4, 2) | PIN_OFF);
  driver.raise(4);
  await sleep(SILENCE);
  t.is(count, 2n, 'disabled by the guest');
  driver.acknowledge(4);
  await device.configWrite(4, 2, device.configRead(4, 2) & ~PIN_OFF);
  driver.raise(8);
  await until(() => count === 3n, 'switched on');
  driver.acknowledge(8);
  interrupts.unmaskIntx();
});

testWith(
  { edu: 1 },
  'a cause that occurs while the pin is disabled interrupts when the guest enables it',
  async (t, { edu: [bdf = ''] }) => {
    const engine = await acknowledgedEngine(t, bdf);
    const { driver, assigned } = engine;
    const { device } = assigned;
    const { interrupts } = device;
    const pinOff = async (off: boolean): Promise<void> => {
      const command = device.configRead(4, 2);
      await device.configWrite(4, 2, off ? command | PIN_OFF : command & ~PIN_OFF);
    };
    driver.raise(1);
    let count = 0n;
    interrupts.vector('intx').onInterrupt((more) => (count += more));
    await until(() => count > 0n, 'asserted before the vector is used');
    driver.acknowledge(1);
    interrupts.unmaskIntx();

    for (let round = 0; round < 5; round++) {
      await pinOff(true);
      count = 0n;
      driver.raise(2);
      interrupts.unmaskIntx();
      await sleep(SILENCE);
      t.is(count, 0n, 'off');
      await pinOff(false);
      await until(() => count > 0n, `enabled for the ${round + 1}. time`);
      driver.acknowledge(2);
      interrupts.unmaskIntx();
    }

    await switchMessages(engine, true);
    await pinOff(true);
    await switchMessages(engine, false);
    count = 0n;
    driver.raise(4);
    await sleep(SILENCE);
    t.is(count, 0n, 'disabled after messages');
    await pinOff(false);
    await until(() => count > 0n, 'enabled after messages');
    driver.acknowledge(4);
    interrupts.unmaskIntx();
  },
);

testWith(
  { edu: 1 },
  'a pending signal of the pin is dropped when the guest disables it, and signalled again when it enables it',
  async (t, { edu: [bdf = ''] }) => {
    const { driver, assigned } = await acknowledgedEngine(t, bdf);
    const { device } = assigned;
    const { fd } = device.interrupts.vector('intx');
    const command = device.configRead(4, 2);
    for (let round = 0; round < 5; round++) {
      driver.raise(1);
      await until(() => counted(fd) > 0n, 'the pin interrupts');
      await device.configWrite(4, 2, command | PIN_OFF);
      t.is(counted(fd), 0n);
      await device.configWrite(4, 2, command);
      await until(() => counted(fd) > 0n, 'it is still asserted');
      driver.acknowledge(1);
      device.interrupts.unmaskIntx();
      await device.configWrite(4, 2, command | PIN_OFF);
      await device.configWrite(4, 2, command);
      t.is(counted(fd), 0n, 'served');
    }
  },
);

testWith({ edu: 1 }, `a guest receives each of ${MESSAGES} messages`, async (t, { edu: [bdf = ''] }) => {
  const engine = await acknowledgedEngine(t, bdf);
  const { driver, assigned } = engine;
  const vector = assigned.device.interrupts.vector('msi');
  let [sum, calls] = [0n, 0];
  vector.onInterrupt((count) => {
    sum += count;
    calls++;
  });
  await programMessage(engine);
  await switchMessages(engine, true);
  const waiting = (): bigint => counted(vector.fd);
  for (let sent = 0; sent < MESSAGES; sent++) {
    driver.raise();
    // As on every machine, the interrupt controller would merge a second message that arrives before the processor has
    // taken the first.
    const burst = BigInt((sent % BURST) + 1);
    for (const deadline = Date.now() + 5000; waiting() !== burst;) {
      if (Date.now() > deadline) throw new Error(`message ${sent} does not arrive: the count is ${waiting()}`);
    }
    if (burst === BigInt(BURST)) await until(() => sum === BigInt(sent + 1), `${sent + 1} messages are counted`);
  }
  t.is(sum, BigInt(MESSAGES));
  t.is(calls, MESSAGES / BURST);
  driver.acknowledge();
});

/** The count of an eventfd, without reading it. */
function counted(fd: number): bigint {
  const hex = /^eventfd-count: *([0-9a-f]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
  return BigInt(`0x${hex ?? ''}`);
}

testWith(
  { ivshmem: 1 },
  'a request of the host to release a device calls a callback, and succeeds once the device is closed',
  async (t, { ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const { device } = await guest.assign(bdf);
    let asked = 0n;
    device.interrupts.vector('request').onInterrupt((count) => (asked += count));
    // Waits in the kernel, on a thread, for the device to be closed.
    const unbound = writeFile('/sys/bus/pci/drivers/vfio-pci/unbind', bdf);
    await until(() => asked > 0n, 'the request came');
    await device.close();
    await unbound;
    await t.throwsAsync(guest.assign(bdf), { code: 'ERR_DEVICE_NOT_BOUND' });
    await writeFile('/sys/bus/pci/drivers_probe', bdf);
    await guest.assign(bdf);
    t.pass();
  },
);
