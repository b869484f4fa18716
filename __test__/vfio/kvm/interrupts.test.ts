/**
 * Interrupts of small guests: messages, lines, events and doorbells, and those of an assigned device.
 */
import test from 'ava';
import { type StdioOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { AssignedDevice, EventFd } from '../../../ts/index.ts';
import { SimulatedDevice, SimulatedIommu } from '../../../ts/testing.ts';
import { until } from '../../support/until.ts';
import { MESSAGE, VECTOR, countingGuest } from './support/interrupts.ts';
import { Code } from './support/machine-code.ts';
import { END_PORT, smallGuest } from './support/small-guest.ts';

/** A line without another device. */
const LEVEL = 10;

test.serial('a message interrupts a halted guest', async (t) => {
  const { vm, count, counts } = await countingGuest(t);
  vm.sendMessage(MESSAGE.address, MESSAGE.data);
  await counts(1n);
  vm.sendMessage(MESSAGE.address, MESSAGE.data);
  await counts(2n);
  t.is(count(), 2n);
  t.deepEqual(vm.inspect().exits, { port: 0, memory: 0, unclaimed: 0 });
});

test.serial('a line interrupts while it is high', async (t) => {
  const { vm, counts } = await countingGuest(t, LEVEL);
  const line = vm.line(LEVEL);
  line.set(true);
  await counts(3n); // the guest acknowledges it, and it interrupts again
  line.set(false);
  t.is(vm.line(LEVEL), line);
  t.throws(() => vm.line(24), { code: 'ERR_INVALID_ARGUMENT' });
});

test.serial('an event of a line interrupts once, and its resample event follows the acknowledgement', async (t) => {
  const { vm, count, counts } = await countingGuest(t, LEVEL);
  const [event, resample] = [EventFd.create(), EventFd.create()];
  t.teardown(() => [event, resample].forEach((one) => one.close()));
  const connection = vm.line(LEVEL).connect(event, { resample });
  event.signal();
  await counts(1n);
  await until(() => resample.take() > 0n, 'the acknowledgement');
  t.is(count(), 1n);
  event.signal();
  await counts(2n);
  connection.remove();
  connection.remove();
  event.signal();
  t.is(event.take(), 1n, 'nobody else reads the event');
});

test.serial('an event that its owner has closed stays connected, and is disconnected like others', async (t) => {
  const { vm, count, counts } = await countingGuest(t, LEVEL);
  const [line, doorbell, other] = [EventFd.create(), EventFd.create(), EventFd.create()];
  t.teardown(() => other.close());
  // The child signals the event by a descriptor of its own, for each line that it reads.
  const stdio: StdioOptions = ['pipe', 'ignore', 'inherit', line.fd];
  const child = spawn('sh', ['-c', 'while read line; do printf "\\1\\0\\0\\0\\0\\0\\0\\0" >&3; done'], { stdio });
  t.teardown(() => child.kill());
  const connection = vm.line(LEVEL).connect(line);
  const registration = vm.addDoorbell({ port: 0x510 }, doorbell);
  line.close();
  doorbell.close();
  child.stdin?.write('1\n');
  await counts(1n);
  connection.remove();
  registration.remove();
  await setTimeout(20); // the guest takes the interrupt more than once if it acknowledges before the line is low
  const before = count();
  child.stdin?.end('2\n');
  await once(child, 'exit');
  await setTimeout(20); // an interrupt would arrive by then
  t.is(count(), before);
  t.notThrows(() => vm.addDoorbell({ port: 0x510 }, other).remove(), 'the address has no doorbell');
});

test.serial('a doorbell signals its event without an exit', async (t) => {
  const page = 0xd000_0000n;
  const code = new Code().rax(5n).rbx(page).store(4).out(0x510, 2).rax(6n).store(4).out(END_PORT);
  const { vm } = await smallGuest(t, code);
  const [all, only, port] = [EventFd.create(), EventFd.create(), EventFd.create()];
  t.teardown(() => [all, only, port].forEach((one) => one.close()));
  vm.addDoorbell({ gpa: page, only: { width: 4, value: 5n } }, only);
  const doorbell = vm.addDoorbell({ port: 0x510 }, port);
  t.throws(() => vm.addDoorbell({ port: 0x510 }, all), { code: 'ERR_SYSTEM' });
  t.throws(() => vm.addDoorbell({} as never, all), { code: 'ERR_INVALID_ARGUMENT' });
  t.is(await vm.run(), 'end');
  t.deepEqual([only.take(), port.take(), all.take()], [1n, 1n, 0n]);
  t.deepEqual(vm.inspect().exits, { port: 1, memory: 1, unclaimed: 1 }); // the write of 6
  doorbell.remove();
});

const COMMAND = 4;
const BUS_MASTER = 4;
/** Registers of MSI, from its capability on. */
const MSI = { control: 2, address: 4, addressHigh: 8, data: 12, mask: 16 };
const ENABLED = 1;

test.serial('interrupts of an assigned device reach the guest without JavaScript, and follow its set-up', async (t) => {
  const { vm, memory, count, counts } = await countingGuest(t);
  const physical = new SimulatedDevice({
    bdf: '0000:00:04.0',
    bars: [{ index: 0, length: 0x1000n }],
    msi: { vectors: 1, masking: true },
    iommu: new SimulatedIommu(),
  });
  const device = await AssignedDevice.create({ device: physical, memory });
  t.teardown(() => device.close());
  const connection = vm.connectInterrupts(device.interrupts);
  await device.configWrite(COMMAND, 2, BUS_MASTER); // messages are DMA
  const at = device.configRead(0x34, 1);
  const write = (register: number, size: number, value: number): Promise<void> =>
    device.configWrite(at + register, size, value);
  await write(MSI.address, 4, Number(MESSAGE.address));
  await write(MSI.data, 2, VECTOR);
  await write(MSI.control, 2, ENABLED);
  physical.raise('msi', 0);
  await counts(1n);
  // While the guest masks it, the interrupt is pending. It arrives when the guest unmasks it.
  await write(MSI.mask, 4, 1);
  physical.raise('msi', 0);
  t.is(device.configRead(at + MSI.mask + 4, 4), 1);
  t.is(count(), 1n);
  await write(MSI.mask, 4, 0);
  await counts(2n);
  // A message to another vector does not reach the guest's handler.
  await write(MSI.control, 2, 0);
  await write(MSI.data, 2, VECTOR);
  await write(MSI.control, 2, ENABLED);
  physical.raise('msi', 0);
  await counts(3n);
  t.deepEqual(vm.inspect().exits, { port: 0, memory: 0, unclaimed: 0 });
  connection.remove();
  physical.raise('msi', 0);
  t.is(device.interrupts.vector('msi').enabled, true);
  t.is(count(), 3n);
});
