/**
 * Calls of virtual machines. Their native core is a stub: calls that it rejects by itself have tests on KVM.
 */
import type { ExecutionContext } from 'ava';
import { AddressRange, AssignedDevice, EventFd, GuestMemory } from '../../../ts/index.ts';
import {
  type Segment,
  identityPageTables,
  lineOfPin,
  longModeAt,
  protectedModeAt,
  realModeAt,
} from '../../../ts/kvm.ts';
import { SimulatedDevice } from '../../../ts/testing.ts';
import { createWithStub, stubbedMachine } from '../../support/native-machine-stub.ts';
import { PAGE } from '../../support/pages.ts';
import { type Anything, type Calls, options } from '../values.ts';

/** An address without memory. */
const FREE = AddressRange.of(16n * PAGE, PAGE);
const PORT = 0x3f8;

export async function kvmCalls(t: ExecutionContext): Promise<Record<string, Calls>> {
  const { memory, vm } = await stubbedMachine(t);
  const [cpu] = vm.cpus;
  const line = vm.line(4);
  const event = EventFd.create();
  const device = new SimulatedDevice({ bdf: '0000:00:04.0', bars: [{ index: 0, length: PAGE }] });
  const assigned = await AssignedDevice.create({ device, memory });
  t.teardown(async () => {
    event.close();
    await assigned.close();
  });
  const { interrupts } = assigned;
  const free = await GuestMemory.create({ addressWidth: 32 });
  t.teardown(() => free.close());
  const create = async (given: Anything): Promise<void> => (await createWithStub(given)).vm.close();
  const portHandler = { read: () => 0, write: () => undefined };
  const memoryHandler = { read: (_: bigint, length: number) => new Uint8Array(length), write: () => undefined };
  const ring = (given: Anything): void => vm.addDoorbell(given, event).remove();
  const registers = cpu.registers();
  return {
    'VirtualMachine.create': options({ memory: free, cpus: 1, unclaimed: 'ones' }, create),
    'VirtualMachine#run': options({ signal: undefined }, async (given) => {
      const run = vm.run(given);
      vm.stop('end');
      await run;
    }),
    'VirtualMachine#pause': options({ signal: undefined }, async (given) => {
      const run = vm.run();
      try {
        await vm.pause(given);
      } finally {
        vm.stop('end');
        await run;
      }
    }),
    'VirtualMachine#stop': {
      reason: async (value) => {
        const run = vm.run();
        try {
          vm.stop(value);
        } finally {
          vm.stop('end');
          await run;
        }
      },
    },
    realModeAt: { address: (value) => realModeAt(value) },
    protectedModeAt: { address: (value) => protectedModeAt(value) },
    longModeAt: {
      address: (value) => longModeAt(value, 0n),
      pageTables: (value) => longModeAt(0n, value),
    },
    identityPageTables: { address: (value) => identityPageTables(value) },
    lineOfPin: {
      device: (value) => lineOfPin(value, 1),
      pin: (value) => lineOfPin(0, value),
    },
    'VirtualMachine#line': { number: (value) => vm.line(value) },
    'VirtualMachine#sendMessage': {
      address: (value) => vm.sendMessage(value, 0),
      data: (value) => vm.sendMessage(0n, value),
    },
    'VirtualMachine#attach': { bridge: (value) => vm.attach(value).remove() },
    'VirtualMachine#connectInterrupts': {
      interrupts: (value) => vm.connectInterrupts(value).remove(),
      ...options({ line }, (given) => vm.connectInterrupts(interrupts, given).remove()),
    },
    'VirtualMachine#addDoorbell': {
      event: (value) => vm.addDoorbell({ port: PORT }, value).remove(),
      ...options({ port: PORT, only: { width: 1, value: 0n } }, ring),
      ...options({ gpa: FREE.start }, ring, ['gpa']),
      ...options({ width: 1, value: 0n }, (only) => ring({ port: PORT, only }), ['width', 'value']),
    },
    'VirtualCpu#setRegisters': {
      ...options({ ...registers }, (given) => cpu.setRegisters(given)),
      ...segmentCalls(registers.cs, (cs) => cpu.setRegisters({ cs })),
      'gdt.limit': (limit) => cpu.setRegisters({ gdt: { base: 0n, limit } }),
    },
    'VirtualCpu#translate': { linear: (value) => cpu.translate(value) },
    'InterruptLine#set': { high: (value) => line.set(value) },
    'InterruptLine#connect': {
      event: (value) => line.connect(value).remove(),
      ...options({ resample: undefined }, (given) => line.connect(event, given).remove()),
    },
    'PortSpace#add': {
      first: (value) => vm.ports.add(value, 1, portHandler).remove(),
      count: (value) => vm.ports.add(PORT, value, portHandler).remove(),
      ...options(portHandler, (given) => vm.ports.add(PORT, 1, given).remove()),
    },
    'HandledMemory#add': {
      range: (value) => vm.mmio.add(value, memoryHandler).remove(),
      ...options(memoryHandler, (given) => vm.mmio.add(FREE, given).remove()),
    },
  };
}

/** Calls with each part of a segment register, by the name in messages. */
function segmentCalls(valid: Segment, call: (cs: Anything) => unknown): Calls {
  const { 'the object': whole, ...parts } = options({ ...valid }, call);
  const named = Object.entries(parts).map(([name, one]) => [`cs.${name}`, one] as const);
  return { cs: whole as (value: Anything) => unknown, ...Object.fromEntries(named) };
}
