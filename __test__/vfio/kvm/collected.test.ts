/**
 * Virtual machines that are garbage-collected instead of closed.
 */
import test from 'ava';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { extname } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Worker } from 'node:worker_threads';
import { EventFd, GuestMemory, PciHostBridge } from '../../../ts/index.ts';
import { VirtualMachine } from '../../../ts/kvm.ts';
import { openFiles } from '../../support/open-files.ts';
import { until } from '../../support/until.ts';
import { collectGarbage } from '../support/native-rig.ts';
import { Code } from './support/machine-code.ts';
import { END_PORT, FREE, RAM_LENGTH, load, writePageTables } from './support/small-guest.ts';

const PAUSING = new URL(`../programs/pausing-worker${extname(import.meta.url)}`, import.meta.url);
const SLOW_PORT = 0x50;
/** Of processors, and of waits for them. */
const THREADS = /^peerdma-(cpu|wait)/;

/** The open files and the threads of virtual machines. */
function found(): { files: number; threads: number } {
  return {
    files: openFiles().filter((target) => target.startsWith('anon_inode:kvm-')).length,
    threads: readdirSync('/proc/self/task').filter((id) => THREADS.test(threadName(id))).length,
  };
}

/** The name of a thread; `''` for one that has ended. */
function threadName(id: string): string {
  try {
    return readFileSync(`/proc/self/task/${id}/comm`, 'utf8');
  } catch {
    return '';
  }
}

/** Collects garbage until the virtual machines are as `before`; a collection may not find all. */
async function collectMachines(before: ReturnType<typeof found>): Promise<void> {
  for (let attempt = 0; attempt < 10 && !isDeepStrictEqual(found(), before); attempt++) await collectGarbage();
}

/** Runs a guest to its end. Nothing is kept. */
async function runAndForget(): Promise<{ vm: WeakRef<VirtualMachine>; memory: WeakRef<GuestMemory> }> {
  const { vm, memory } = await guest(new Code().rax(7n).rbx(FREE).store(8).out(END_PORT));
  if ((await vm.run()) !== 'end' || memory.read64(FREE) !== 7n) throw new Error('the guest did not run');
  return { vm: new WeakRef(vm), memory: new WeakRef(memory) };
}

/** A machine with what refers to it: a handler, a bridge and a line. */
async function guest(code: Code): Promise<{ vm: VirtualMachine; memory: GuestMemory }> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: RAM_LENGTH }] });
  const vm = await VirtualMachine.create({ memory, cpus: 2 });
  vm.ports.add(END_PORT, 1, { read: () => 0, write: () => vm.stop('end') });
  vm.attach(new PciHostBridge({ memory, windows: [] }));
  vm.line(4).connect(EventFd.create());
  writePageTables(memory);
  load(memory, vm.cpus[0], code);
  return { vm, memory };
}

test.serial('an unreachable machine that does not run is collected with its memory, threads and slots', async (t) => {
  await collectGarbage();
  const before = found();
  const { vm, memory } = await runAndForget();
  const all = { files: before.files + 3, threads: before.threads + 2 };
  await until(() => isDeepStrictEqual(found(), all), 'the end of the thread that has waited for the processors');
  await collectMachines(before);
  t.is(vm.deref(), undefined);
  t.is(memory.deref(), undefined);
  t.deepEqual(found(), before);
});

/** Runs a guest whose handler fails while something waits for its answer. Nothing is kept. */
async function failAndForget(waitFor: (vm: VirtualMachine) => unknown): Promise<WeakRef<VirtualMachine>> {
  const { vm } = await guest(new Code().out(SLOW_PORT));
  let fail = (): void => {};
  const called = new Promise<void>((resolve) => {
    const write = (): Promise<void> => {
      resolve();
      return new Promise((_, reject) => (fail = () => reject(new Error('it fails'))));
    };
    vm.ports.add(SLOW_PORT, 1, { read: () => 0, write });
  });
  const run = vm.run();
  await called;
  const waiting = waitFor(vm);
  fail();
  const ends = await Promise.allSettled([run, waiting]);
  if (ends[0].status === 'fulfilled') throw new Error('the handler did not fail');
  return new WeakRef(vm);
}

for (const [name, waitFor] of [
  ['stop', (vm: VirtualMachine) => vm.stop('end')],
  ['pause', (vm: VirtualMachine) => vm.pause()],
] as const) {
  test.serial(`a machine that fails while a ${name} waits for its handler is collected with its threads`, async (t) => {
    await collectGarbage();
    const before = found();
    const vm = await failAndForget(waitFor);
    await collectMachines(before);
    t.is(vm.deref(), undefined);
    t.deepEqual(found(), before);
  });
}

test.serial('a worker that is terminated while a pause waits leaves no threads and files', async (t) => {
  const before = found();
  const worker = new Worker(PAUSING, { execArgv: [] });
  const ended = once(worker, 'exit');
  t.is((await once(worker, 'message'))[0], 'the pause waits');
  t.true(found().threads > before.threads);
  await worker.terminate();
  await ended;
  await until(() => isDeepStrictEqual(found(), before), 'the threads of the worker end');
  t.pass();
});

/** Starts a guest that counts until the test sets a byte. Keeps the end of the run only. */
async function startAndForget(): Promise<{ memory: GuestMemory; run: Promise<string> }> {
  const code = new Code();
  const loop = code.rbx(FREE).length;
  code.increment().raw(0xf6, 0x43, 0x08, 0x01, 0x74); // test byte [rbx + 8], 1; jz loop
  const { vm, memory } = await guest(code.raw((loop - (code.length + 1)) & 0xff).out(END_PORT));
  return { memory, run: vm.run() };
}

test.serial('a machine that runs is not collected, and its handlers answer', async (t) => {
  await collectGarbage();
  const before = found();
  const { memory, run } = await startAndForget();
  await until(() => memory.read64(FREE) > 0n, 'the guest counts');
  await collectGarbage();
  await collectGarbage();
  const count = memory.read64(FREE);
  await until(() => memory.read64(FREE) > count, 'the guest counts on');
  memory.write(FREE + 8n, Uint8Array.of(1));
  t.is(await run, 'end');
  await memory.close();
  await collectMachines(before);
  t.deepEqual(found(), before);
});
