/**
 * A processor executes code in each mode, from the state of the mode before, and after a halt.
 */
import test, { type ExecutionContext } from 'ava';
import { setTimeout } from 'node:timers/promises';
import { GuestMemory } from '../../../ts/index.ts';
import {
  type CpuRegisters,
  type VirtualCpu,
  VirtualMachine,
  identityPageTables,
  longModeAt,
  protectedModeAt,
  realModeAt,
} from '../../../ts/kvm.ts';

const PAGE_TABLES = 0x3000n;
/** Above 64 KiB, so that real mode needs a segment. */
const CODE = 0x1_2340n;

/**
 * `dec eax; inc eax; out 0xf4, eax` in 32 bits. In 64 bits the first byte is a prefix, so it only increments. In 16
 * bits the access has two bytes.
 */
const BYTES = Uint8Array.of(0x48, 0xff, 0xc0, 0xe7, 0xf4);

/** `hlt; out 0xf4, al`. Interrupts are disabled. */
const HALT = Uint8Array.of(0xf4, 0xe6, 0xf4);
const HALT_ADDRESS = 0x1000n;
const BEHIND_HALT = HALT_ADDRESS + 1n;

/** A machine that stops with `end` when the guest writes to port 0xf4. */
async function machine(t: ExecutionContext, cpus: number): Promise<VirtualMachine> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 1n << 20n }] });
  t.teardown(() => memory.close());
  const vm = await VirtualMachine.create({ memory, cpus });
  t.teardown(() => vm.close());
  vm.ports.add(0xf4, 1, { read: () => 0, write: () => vm.stop('end') });
  memory.write(HALT_ADDRESS, HALT);
  memory.write(CODE, BYTES);
  return vm;
}

/** Runs a machine whose first processor halts, and pauses it then. */
async function runToHalt(vm: VirtualMachine): Promise<{ run: Promise<string> }> {
  const [cpu] = vm.cpus;
  cpu.setRegisters(realModeAt(HALT_ADDRESS));
  const run = vm.run();
  await vm.pause();
  for (const deadline = Date.now() + 20_000; cpu.registers().rip !== BEHIND_HALT; await vm.pause()) {
    if (Date.now() > deadline) throw new Error('timeout: the processor has halted');
    vm.resume();
  }
  return { run };
}

test.serial('a processor starts in real, protected and long mode, in any order', async (t) => {
  await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: 1n << 20n }] });
  await using vm = await VirtualMachine.create({ memory });
  const [cpu] = vm.cpus;
  const accesses: string[] = [];
  vm.ports.add(0xf4, 1, {
    read: () => 0,
    write: (_port, width, value) => {
      accesses.push(`${width} bytes: ${value}`);
      vm.stop('end');
    },
  });
  memory.write(PAGE_TABLES, identityPageTables(PAGE_TABLES));
  memory.write(CODE, BYTES);
  const modes: Readonly<Record<string, Partial<CpuRegisters>>> = {
    real: realModeAt(CODE),
    protected: protectedModeAt(CODE),
    long: longModeAt(CODE, PAGE_TABLES),
  };
  const order = ['long', 'real', 'protected', 'long', 'protected', 'real', 'long'];
  for (const mode of order) {
    cpu.setRegisters({ ...modes[mode], rax: 0n });
    t.is(await vm.run(), 'end');
    const { cs, rip } = cpu.registers();
    t.is(cs.base + rip, CODE + BigInt(BYTES.length), mode);
  }
  const expected: Readonly<Record<string, string>> = {
    real: '2 bytes: 0',
    protected: '4 bytes: 0',
    long: '4 bytes: 1',
  };
  t.deepEqual(
    accesses,
    order.map((mode) => expected[mode]),
  );
});

const places: [place: string, registers: Partial<CpuRegisters>][] = [
  ['other code', realModeAt(CODE)],
  ['the next instruction', { rip: BEHIND_HALT }],
];
for (const [place, registers] of places) {
  test.serial(`a halted processor continues at ${place} if that is set, in a pause and after a stop`, async (t) => {
    const vm = await machine(t, 1);
    const [cpu] = vm.cpus;
    const paused = await runToHalt(vm);
    cpu.setRegisters(registers);
    vm.resume();
    t.is(await paused.run, 'end');

    const stopped = await runToHalt(vm);
    vm.stop('halted');
    t.is(await stopped.run, 'halted');
    cpu.setRegisters(registers);
    t.is(await vm.run(), 'end');
  });
}

test.serial('a halted processor stays halted if other registers are set', async (t) => {
  const vm = await machine(t, 1);
  const [cpu] = vm.cpus;
  const { run } = await runToHalt(vm);
  cpu.setRegisters({ rax: 1n });
  vm.resume();
  await setTimeout(20);
  vm.stop('halted');
  t.is(await run, 'halted');
  t.like(cpu.registers(), { rax: 1n, rip: BEHIND_HALT });
});

test.serial('a processor that the guest has not started waits, whatever registers it has', async (t) => {
  const vm = await machine(t, 2);
  const second = vm.cpus[1] as VirtualCpu;
  second.setRegisters(realModeAt(CODE));
  const { run } = await runToHalt(vm);
  vm.resume();
  await setTimeout(20);
  vm.stop('halted');
  t.is(await run, 'halted');
  const { cs, rip } = second.registers();
  t.is(cs.base + rip, CODE);
});
