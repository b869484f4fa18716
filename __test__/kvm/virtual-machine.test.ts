/**
 * Virtual machines without KVM: arguments, and what happens when a part of a call fails. Guests run in
 * `__test__/vfio/kvm`.
 */
import test from 'ava';
import { inspect } from 'node:util';
import { AssignedDevice, EventFd, PciHostBridge } from '../../ts/index.ts';
import { SimulatedDevice } from '../../ts/testing.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { createWithStub, stubbedMachine } from '../support/native-machine-stub.ts';

const HANDLER = { read: () => 0, write: () => undefined };

/** A device with MSI and a pin. */
const deviceWithInterrupts = (): SimulatedDevice =>
  new SimulatedDevice({ bdf: '0000:00:04.0', msi: { vectors: 1 }, interruptPin: true });

/** Registers of config space. */
const CAPABILITIES = 0x34;
const MSI_CONTROL = 2;

test('a bridge whose ports are in use leaves no handler', async (t) => {
  const { memory, vm } = await stubbedMachine(t);
  const bridge = new PciHostBridge({ memory, windows: [] });
  const handler = vm.ports.add(PciHostBridge.CONFIG_DATA + 3, 1, HANDLER);
  throwsCode(t, () => vm.attach(bridge), 'ERR_OVERLAP');
  vm.ports.add(PciHostBridge.CONFIG_ADDRESS, 1, HANDLER).remove();
  handler.remove();
  const attached = vm.attach(bridge);
  attached.remove();
  attached.remove();
  vm.attach(bridge);
});

test('a machine has one bridge, and a bridge one machine', async (t) => {
  const [{ memory, vm }, other] = [await stubbedMachine(t), await stubbedMachine(t)];
  const bridge = new PciHostBridge({ windows: [] });
  const second = new PciHostBridge({ memory, windows: [] });
  const attached = vm.attach(bridge);
  for (const one of [bridge, second]) {
    const { message } = throwsCode(t, () => vm.attach(one), 'ERR_OVERLAP');
    t.regex(message, /it has one, whose ports .* Remove the first/);
  }
  const { message } = throwsCode(t, () => other.vm.attach(bridge), 'ERR_INVALID_ARGUMENT');
  t.regex(message, /another virtual machine has the bridge\. Remove it there first/);
  other.vm.ports.add(PciHostBridge.CONFIG_ADDRESS, 1, HANDLER).remove();
  attached.remove();
  vm.attach(second);
  other.vm.attach(bridge);
});

test('rejects a bridge whose devices are in another guest memory', async (t) => {
  const [{ vm }, { memory }] = [await stubbedMachine(t), await stubbedMachine(t)];
  const bridge = new PciHostBridge({ memory, windows: [] });
  const { message } = throwsCode(t, () => vm.attach(bridge), 'ERR_INVALID_ARGUMENT');
  t.regex(message, /the bridge has another guest memory\. Create it/);
  vm.ports.add(PciHostBridge.CONFIG_ADDRESS, 1, HANDLER).remove();
});

test('a device of another guest memory is rejected, on the bridge before its attachment and after', async (t) => {
  const [{ vm }, { memory: other }] = [await stubbedMachine(t), await stubbedMachine(t)];
  const device = await AssignedDevice.create({ device: deviceWithInterrupts(), memory: other });
  t.teardown(() => device.close());
  const bridge = new PciHostBridge({ windows: [] });
  const added = bridge.add('00:01.0', device);
  const { message } = throwsCode(t, () => vm.attach(bridge), 'ERR_INVALID_ARGUMENT');
  t.regex(message, /the device at 00:01\.0 failed: it is in another guest memory\. Create it/);
  added.remove();
  vm.attach(bridge);
  throwsCode(t, () => bridge.add('00:01.0', device), 'ERR_INVALID_ARGUMENT');
  t.deepEqual([...bridge.functions.keys()], ['00:00.0']);
});

test('interrupts have one connection, and a second one is rejected', async (t) => {
  const [{ memory, vm, stub }, other] = [await stubbedMachine(t), await stubbedMachine(t)];
  const device = await AssignedDevice.create({ device: deviceWithInterrupts(), memory });
  t.teardown(() => device.close());
  const { interrupts } = device;
  let changes = 0;
  interrupts.onChange(() => changes++);
  const connection = vm.connectInterrupts(interrupts);
  for (const machine of [vm, other.vm]) {
    const { message } = throwsCode(t, () => machine.connectInterrupts(interrupts), 'ERR_INVALID_ARGUMENT');
    t.regex(message, /are connected to a virtual machine already\. Remove/);
  }
  const msi = device.configRead(CAPABILITIES, 1);
  await device.configWrite(msi + MSI_CONTROL, 2, 1);
  t.deepEqual(stub.calls, ['routes 1', 'connect 24']);
  t.is(changes, 1);
  connection.remove();
  other.vm.connectInterrupts(interrupts);
  t.deepEqual(other.stub.calls, ['routes 1', 'connect 24']);
});

test('interrupts whose connection fails can be connected again', async (t) => {
  const { memory, vm, stub } = await stubbedMachine(t);
  const device = await AssignedDevice.create({ device: deviceWithInterrupts(), memory });
  t.teardown(() => device.close());
  const options = { line: vm.line(4) };
  stub.isFull = true;
  throwsCode(t, () => vm.connectInterrupts(device.interrupts, options), 'ERR_SYSTEM');
  stub.isFull = false;
  vm.connectInterrupts(device.interrupts, options);
  t.true(stub.calls.includes('connect 4'));
});

test('a disconnection that fails is tried again by the next addition and by the removal of the bridge', async (t) => {
  const { memory, vm, stub } = await stubbedMachine(t);
  const device = await AssignedDevice.create({ device: deviceWithInterrupts(), memory });
  t.teardown(() => device.close());
  const bridge = new PciHostBridge({ memory, windows: [] });
  const attached = vm.attach(bridge);
  const failToRemove = (address: string): void => {
    bridge.add(address, device);
    stub.isStuck = true;
    throwsCode(t, () => bridge.remove(address), 'ERR_SYSTEM');
    t.false(bridge.functions.has(address));
    stub.isStuck = false;
    stub.calls.length = 0;
  };
  failToRemove('00:01.0');
  failToRemove('00:02.0');
  attached.remove();
  t.deepEqual(stub.calls, ['disconnect 18', 'routes 0']);
});

test('a closed machine accepts no bridge and no interrupts', async (t) => {
  const [{ memory, vm }, other] = [await stubbedMachine(t), await stubbedMachine(t)];
  const device = await AssignedDevice.create({ device: deviceWithInterrupts(), memory });
  t.teardown(() => device.close());
  const bridge = new PciHostBridge({ windows: [] });
  await vm.close();
  throwsCode(t, () => vm.attach(bridge), 'ERR_CLOSED');
  throwsCode(t, () => vm.connectInterrupts(device.interrupts), 'ERR_CLOSED');
  other.vm.attach(bridge);
  other.vm.connectInterrupts(device.interrupts);
  t.is(other.vm.state, 'stopped');
});

test('a device whose interrupts cannot be connected is not on the bus', async (t) => {
  const { memory, vm, stub } = await stubbedMachine(t);
  const bridge = new PciHostBridge({ memory, windows: [] });
  const device = await AssignedDevice.create({ device: deviceWithInterrupts(), memory });
  t.teardown(() => device.close());
  vm.attach(bridge);
  stub.isFull = true;
  throwsCode(t, () => bridge.add('00:01.0', device), 'ERR_SYSTEM');
  t.deepEqual([...bridge.functions.keys()], ['00:00.0']);
  stub.isFull = false;
  bridge.add('00:01.0', device);
  t.true(bridge.functions.has('00:01.0'));
});

test('a bridge and its devices can be used with another machine after the close of the first', async (t) => {
  const { memory, vm } = await stubbedMachine(t);
  const bridge = new PciHostBridge({ memory, windows: [] });
  const device = await AssignedDevice.create({ device: deviceWithInterrupts(), memory });
  t.teardown(() => device.close());
  const attached = vm.attach(bridge);
  bridge.add('00:01.0', device);
  await vm.close();
  attached.remove();
  t.deepEqual(memory.inspect().targets, []);
  const { vm: second, stub } = await createWithStub({ memory });
  second.attach(bridge);
  t.true(stub.calls.some((call) => call.startsWith('connect ')));
  bridge.remove('00:01.0');
  await second.close();
});

test('a machine that is closed stays closed when a device changes its interrupts', async (t) => {
  const { memory, vm, stub } = await stubbedMachine(t);
  const device = await AssignedDevice.create({ device: deviceWithInterrupts(), memory });
  t.teardown(() => device.close());
  vm.connectInterrupts(device.interrupts);
  await vm.close();
  const { length } = stub.calls;
  const msi = device.configRead(CAPABILITIES, 1);
  await device.configWrite(msi + MSI_CONTROL, 2, 1);
  t.is(vm.state, 'closed');
  await rejectsCode(t, vm.run(), 'ERR_CLOSED');
  t.is(stub.calls.length, length);
});

test('a name that no register has is rejected, and undefined keeps a value', async (t) => {
  const { vm, stub } = await stubbedMachine(t);
  const [cpu] = vm.cpus;
  const { message } = throwsCode(t, () => cpu.setRegisters({ eip: 0n } as never), 'ERR_INVALID_ARGUMENT');
  t.is(message, 'a processor has no register eip');
  t.deepEqual(stub.calls, []);
  cpu.setRegisters({ rip: 0x1000n, rax: undefined as never });
  t.deepEqual(stub.calls, ['setRegisters 0']);
});

test('a line of another machine, and a value that is not one, are rejected', async (t) => {
  const [{ memory, vm }, other] = [await stubbedMachine(t), await stubbedMachine(t)];
  const device = await AssignedDevice.create({ device: deviceWithInterrupts(), memory });
  t.teardown(() => device.close());
  for (const line of [other.vm.line(4), { number: 4 } as never]) {
    throwsCode(t, () => vm.connectInterrupts(device.interrupts, { line }), 'ERR_INVALID_ARGUMENT');
  }
  vm.connectInterrupts(device.interrupts, { line: vm.line(4) }).remove();
});

test('the level of a line is a boolean', async (t) => {
  const { vm, stub } = await stubbedMachine(t);
  throwsCode(t, () => vm.line(4).set(1 as never), 'ERR_INVALID_ARGUMENT');
  vm.line(4).set(true);
  t.deepEqual(stub.calls, ['line 4 high']);
});

test('a doorbell is removed as it was added', async (t) => {
  const { vm, stub } = await stubbedMachine(t);
  const event = EventFd.create();
  t.teardown(() => event.close());
  const doorbell = { port: 0x510, only: { width: 1, value: 5n } };
  const registration = vm.addDoorbell(doorbell, event);
  doorbell.only.value = 6n;
  registration.remove();
  registration.remove();
  t.deepEqual(stub.calls, ['connect port 510 1 5', 'disconnect port 510 1 5']);
});

test('the close of a machine ends connections, whose removal later does nothing', async (t) => {
  const { vm, stub } = await stubbedMachine(t);
  const event = EventFd.create();
  {
    using _line = vm.line(4).connect(event);
    using _doorbell = vm.addDoorbell({ port: 0x510 }, event);
    using _handler = vm.ports.add(0x3f8, 1, HANDLER);
    event.close();
    await vm.close();
  }
  t.deepEqual(stub.calls, ['connect 4', 'connect port 510', 'disconnect 4', 'disconnect port 510']);
  t.throws(() => event.fd, { code: 'ERR_CLOSED' });
});

test('shows the machine and its processors, and its state', async (t) => {
  const { vm } = await stubbedMachine(t, 2);
  t.is(inspect(vm), 'VirtualMachine { cpus: 2, stopped }');
  t.is(inspect(vm.cpus[1]), 'VirtualCpu 1 {  }');
  await vm.close();
  t.is(inspect(vm), 'VirtualMachine { cpus: 2, closed }');
});
