/**
 * Processors of small guests: accesses to ports, pauses, several processors, ends and failures.
 */
import test from 'ava';
import { PeerDmaError } from '../../../ts/index.ts';
import { VirtualMachine } from '../../../ts/kvm.ts';
import { GuestMemory } from '../../../ts/index.ts';
import { until } from '../../support/until.ts';
import { Code } from './support/machine-code.ts';
import { END_PORT, FREE, load, smallGuest } from './support/small-guest.ts';

/** A port of the tests' devices. */
const PORT = 0x3f8;

const counting = (): Code => new Code().rbx(FREE).increment().jump(0);

test.serial('accesses to ports reach their handler with each width', async (t) => {
  const code = new Code();
  for (const width of [1, 2, 4])
    code
      .rax(0n)
      .in(PORT, width)
      .out(PORT + 4, width);
  const { vm } = await smallGuest(t, code.out(END_PORT));
  const accesses: string[] = [];
  vm.ports.add(PORT, 8, {
    read: (port, width) => {
      accesses.push(`read ${port - PORT} ${width}`);
      return 0x8877_6655;
    },
    write: (port, width, value) => void accesses.push(`write ${port - PORT} ${width} ${value.toString(16)}`),
  });
  t.is(await vm.run(), 'end');
  t.deepEqual(accesses, ['read 0 1', 'write 4 1 55', 'read 0 2', 'write 4 2 6655', 'read 0 4', 'write 4 4 88776655']);
});

test.serial('a string instruction reaches the handler byte by byte', async (t) => {
  const { vm } = await smallGuest(t, new Code().outString(PORT, 'peer-to-peer').out(END_PORT));
  let text = '';
  vm.ports.add(PORT, 1, { read: () => 0, write: (_port, _width, value) => void (text += String.fromCharCode(value)) });
  t.is(await vm.run(), 'end');
  t.is(text, 'peer-to-peer');
});

test.serial('a handler may answer with a promise', async (t) => {
  const { memory, vm } = await smallGuest(
    t,
    new Code().rax(0n).in(PORT, 4).rbx(FREE).store(8).out(PORT, 4).out(END_PORT),
  );
  const written: number[] = [];
  const later = async <T>(value: T): Promise<T> => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    return value;
  };
  vm.ports.add(PORT, 1, {
    read: () => later(42),
    write: async (_port, _width, value) => void written.push(await later(value)),
  });
  t.is(await vm.run(), 'end');
  t.is(memory.read64(FREE), 42n);
  t.deepEqual(written, [42]);
});

test.serial('a paused guest does not run, and continues where it was', async (t) => {
  const { memory, vm, cpu } = await smallGuest(t, counting());
  const run = vm.run();
  await until(() => memory.read64(FREE) > 1000n, 'the guest counts');
  await vm.pause();
  const count = memory.read64(FREE);
  t.true(cpu.registers().rip >= 0x1_0000n);
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.is(memory.read64(FREE), count);
  vm.resume();
  await until(() => memory.read64(FREE) > count + 1000n, 'the guest counts on');
  t.throws(() => cpu.registers(), { code: 'ERR_CPU_RUNNING' });
  vm.stop('enough');
  t.is(await run, 'enough');
});

test.serial('pausing during accesses loses none and repeats none', async (t) => {
  const code = new Code().rbx(FREE);
  const start = code.length;
  code.increment().in(PORT).jump(start);
  const { memory, vm } = await smallGuest(t, code);
  let reads = 0n;
  vm.ports.add(PORT, 1, { read: () => Number((reads++ & 0x7fn) | 1n), write: () => {} });
  const run = vm.run();
  for (let round = 0; round < 200; round++) {
    await vm.pause();
    const unread = memory.read64(FREE) - reads; // it counts before it reads
    t.true(unread === 0n || unread === 1n, `${unread}`);
    vm.resume();
    await new Promise((resolve) => setImmediate(resolve));
  }
  vm.stop('paused');
  t.is(await run, 'paused');
  t.true(reads > 0n);
});

test.serial('an abort ends the run of a guest, which continues where it was', async (t) => {
  const { memory, vm } = await smallGuest(t, counting());
  const controller = new AbortController();
  const run = vm.run({ signal: controller.signal });
  await until(() => memory.read64(FREE) > 1000n, 'the guest counts');
  const reason = new Error('the user has quit');
  controller.abort(reason);
  t.is(await t.throwsAsync(run), reason);
  t.is(vm.state, 'stopped');
  const count = memory.read64(FREE);
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.is(memory.read64(FREE), count);
  const again = vm.run();
  await until(() => memory.read64(FREE) > count + 1000n, 'the guest counts on');
  vm.stop('enough');
  t.is(await again, 'enough');
});

test.serial('a pause that waits for a handler can be aborted, and the access completes once', async (t) => {
  const { memory, vm } = await smallGuest(t, new Code().rax(0n).in(PORT, 4).rbx(FREE).store(8).out(END_PORT));
  let answer: (value: number) => void = () => {};
  const asked = new Promise<void>((resolve) => {
    const read = (): Promise<number> =>
      new Promise((settle) => {
        answer = settle;
        resolve();
      });
    vm.ports.add(PORT, 1, { read, write: () => {} });
  });
  const run = vm.run();
  await asked;
  const reason = new Error('the device is slow');
  const controller = new AbortController();
  const pause = vm.pause({ signal: controller.signal });
  controller.abort(reason);
  await t.throwsAsync(pause, { is: reason });
  t.is(vm.state, 'running');
  answer(42);
  t.is(await run, 'end');
  t.is(memory.read64(FREE), 42n);
});

test.serial('two processors run at the same time', async (t) => {
  const { memory, vm } = await smallGuest(t, counting(), { cpus: 2 });
  // The first starts the second as a guest does: by INIT and STARTUP messages of its local APIC (Intel SDM volume 3,
  // 10.4.4.1). The second begins in real mode at 0x9000: jmp 0x9010; inc dword [cs:8]; jmp 0x9010.
  const code = new Code();
  const set = (register: bigint, value: bigint): Code =>
    code
      .rax(value)
      .rbx(0xfee0_0000n + register)
      .store(4);
  set(0xf0n, 0x1ffn); // enables the local APIC
  for (const command of [0x4500n, 0x4609n]) {
    set(0x310n, 1n << 24n);
    set(0x300n, command);
  }
  memory.write(
    0x9000n,
    Uint8Array.of(0xeb, 0x0e, ...new Uint8Array(14), 0x66, 0x2e, 0xff, 0x06, 0x08, 0x00, 0xeb, 0xf8),
  );
  const loop = code.length;
  load(memory, vm.cpus[0] as never, code.rbx(FREE).increment().jump(loop));
  const run = vm.run();
  await until(() => memory.read32(0x9008n) > 10 && memory.read64(FREE) > 10n, 'both count');
  vm.stop('both');
  t.is(await run, 'both');
});

test.serial('a reset returns processors to their power-on state, and the guest can start again', async (t) => {
  const { memory, vm, cpu } = await smallGuest(t, counting(), { cpus: 2 });
  const run = vm.run();
  await until(() => memory.read64(FREE) > 10n, 'the guest counts');
  t.throws(() => vm.reset(), { code: 'ERR_INVALID_ARGUMENT' });
  vm.stop('reset');
  t.is(await run, 'reset');
  vm.reset();
  const { rip, cs, cr0, efer } = cpu.registers();
  t.deepEqual([rip, cs.base, cr0 & 1n, efer], [0xfff0n, 0xffff_0000n, 0n, 0n]);
  load(memory, cpu, new Code().rax(7n).rbx(FREE).store(8).out(END_PORT));
  t.is(await vm.run(), 'end');
  t.is(memory.read64(FREE), 7n);
});

test.serial('a triple fault ends the run', async (t) => {
  const { vm } = await smallGuest(t, new Code().undefinedInstruction());
  t.is(await vm.run(), 'triple-fault');
  t.is(vm.state, 'stopped');
});

test.serial('a handler that throws fails the run, with the access, the registers and its error', async (t) => {
  const { vm } = await smallGuest(t, new Code().rax(7n).out(PORT).out(END_PORT));
  const cause = new Error('the device is on fire');
  const write = (): never => {
    throw cause;
  };
  vm.ports.add(PORT, 1, { read: () => 0, write });
  const error = await t.throwsAsync(vm.run(), { instanceOf: PeerDmaError });
  t.is(error.code, 'ERR_CPU_FAILED');
  t.is(error.cause, cause);
  t.regex(error.message, /processor 0: write of 1 byte at port 0x3f8 failed: the device is on fire/);
  t.regex(error.message, /rip=0x1000[0-9a-f] .*bytes at rip: /);
  t.is(vm.state, 'failed');
  await t.throwsAsync(vm.run(), { code: 'ERR_INVALID_ARGUMENT' });
});

test.serial('a handler whose promise rejects fails the run', async (t) => {
  const { vm } = await smallGuest(t, new Code().in(PORT).out(END_PORT));
  vm.ports.add(PORT, 1, { read: () => Promise.reject(new Error('no')), write: () => {} });
  await t.throwsAsync(vm.run(), { code: 'ERR_CPU_FAILED', message: /read of 1 byte at port 0x3f8 failed: no/ });
});

test.serial('an unclaimed access fails the run if the machine is created so', async (t) => {
  const { vm } = await smallGuest(t, new Code().rbx(0xd000_0000n).load(4).out(END_PORT), { unclaimed: 'stop' });
  const message = /processor 0: read of 4 bytes at address 0xd0000000 failed: no handler and no memory is there/;
  await t.throwsAsync(vm.run(), { code: 'ERR_CPU_FAILED', message });
});

test.serial('executing where there is no memory fails the run, with the place', async (t) => {
  const { vm } = await smallGuest(t, new Code().rax(0xd000_0000n).raw(0xff, 0xe0)); // jmp rax
  const error = await t.throwsAsync(vm.run(), { instanceOf: PeerDmaError });
  t.is(error.code, 'ERR_CPU_FAILED');
  t.regex(error.message, /rip=0xd0000000 .*no memory at rip/);
});

test.serial('registers that no processor has are rejected, and change nothing', async (t) => {
  const { cpu } = await smallGuest(t, new Code().halt());
  const before = cpu.registers();
  for (const wrong of [
    { rip: 1n << 64n },
    { rip: -1n },
    { cs: { ...before.cs, limit: 2 ** 32 } },
    { rax: 1 as never },
  ]) {
    t.throws(() => cpu.setRegisters(wrong), { code: 'ERR_INVALID_ARGUMENT' });
  }
  t.throws(() => cpu.setRegisters({ cr0: 0x8000_0000n }), { code: 'ERR_SYSTEM' }); // paging without protection
  t.deepEqual(cpu.registers(), before);
});

/** The processor time of half a second in which this process is idle. */
const IDLE_MICROSECONDS = 250_000;

/** The processor time that this process uses meanwhile, in microseconds. */
async function cpuTimeOf(milliseconds: number): Promise<number> {
  const before = process.cpuUsage();
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

test.serial('closing a running machine rejects its run, and a halted guest uses no processor time', async (t) => {
  const { vm } = await smallGuest(t, new Code().halt());
  const run = vm.run();
  // In an emulated guest, starting takes a while. A processor that spins never becomes idle.
  let used = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 40 && used > IDLE_MICROSECONDS; attempt++) used = await cpuTimeOf(500);
  t.true(used <= IDLE_MICROSECONDS, `${used} µs`);
  const closed = t.throwsAsync(run, { code: 'ERR_CLOSED' });
  await vm.close();
  await closed;
  t.is(vm.state, 'closed');
  await t.throwsAsync(vm.run(), { code: 'ERR_CLOSED' });
});

test.serial('the processors of a machine that does not run use no time, before a run and in a pause', async (t) => {
  const { vm } = await smallGuest(t, counting(), { cpus: 3 });
  const isIdle = async (): Promise<boolean> => {
    for (let attempt = 0; attempt < 40; attempt++) if ((await cpuTimeOf(500)) <= IDLE_MICROSECONDS) return true;
    return false;
  };
  t.true(await isIdle(), 'before the run');
  const run = vm.run();
  await vm.pause();
  t.true(await isIdle(), 'in the pause');
  vm.stop('end');
  t.is(await run, 'end');
});

test.serial('more processors than KVM supports are an error', async (t) => {
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  await t.throwsAsync(VirtualMachine.create({ memory, cpus: 1000 }), { code: 'ERR_INVALID_ARGUMENT' });
  await t.throwsAsync(VirtualMachine.create({ memory, cpus: 0 }), { code: 'ERR_INVALID_ARGUMENT' });
  t.deepEqual(memory.inspect().targets, []);
});
