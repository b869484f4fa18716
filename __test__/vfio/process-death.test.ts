/**
 * The process or thread that has the devices ends. No page stays pinned, and the devices open again.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { extname } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { Worker } from 'node:worker_threads';
import type { ExecutionContext } from 'ava';
import { AddressRange, GuestMemory } from '../../ts/index.ts';
import { Edu } from '../../examples/devices/edu.ts';
import { type Devices, testWith } from './support/devices.ts';
import { EXIT_STATUS, type FinalReport, type Plan } from './support/ending-plan.ts';
import { openVfioFiles } from './support/open-files.ts';
import { pinnedAtLast } from './support/pins.ts';
import { RAM_START, SINK, pattern, peerBar, send } from './support/rig.ts';
import { BACKEND, newManager } from './support/backend.ts';

const SCRIPT = new URL(`programs/ending-process${extname(import.meta.url)}`, import.meta.url);
const BAR = 0x1_0000_0000n;

/** Enough that pinning takes a while. */
const MEBIBYTES = 128;
const ALL_PAGES = (MEBIBYTES << 20) / 4096;

/** The number of processes that wait for their turn. */
const AHEAD = 2;

type End = Omit<Plan, 'edu' | 'peer' | 'mebibytes'> & { readonly mebibytes?: number };

function planOf({ edu: [edu = ''], ivshmem: [peer = ''] }: Devices, end: End): Plan {
  return { edu, peer, mebibytes: 4, ...end };
}

/** Processes that start in advance, since starting takes time, and wait for their turn. */
async function* inTurn(plans: readonly Plan[]): AsyncGenerator<[Plan, Doomed]> {
  const started = plans.slice(0, AHEAD).map((plan) => new Doomed(plan));
  try {
    for (const [index, plan] of plans.entries()) {
      const next = plans[index + AHEAD];
      if (next !== undefined) started.push(new Doomed(next));
      const child = started.shift();
      if (child !== undefined) yield [plan, child];
    }
  } finally {
    for (const child of started) child.spare();
  }
}

class Doomed {
  readonly #plan: Plan;
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #end: Promise<[[number | null, string | null], string, string]>;

  constructor(plan: Plan) {
    this.#plan = plan;
    const child = spawn(process.execPath, [...process.execArgv, SCRIPT.pathname, JSON.stringify(plan)], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#child = child;
    this.#end = Promise.all([
      once(child, 'exit') as Promise<[number | null, string | null]>,
      text(child.stdout),
      text(child.stderr),
    ]);
  }

  /** Starts its run and returns its report. */
  async report(t: ExecutionContext): Promise<FinalReport> {
    this.#child.stdin.end('go');
    const [[status, signal], said, complaint] = await this.#end;
    const { how } = this.#plan;
    if (how === 'SIGKILL') t.is(signal, 'SIGKILL', complaint);
    else t.is(status, how === 'throw' ? 1 : EXIT_STATUS, complaint);
    if (how === 'throw') t.regex(complaint, /planned end/);
    return JSON.parse(said) as FinalReport;
  }

  /** Kills it before its run. */
  spare(): void {
    this.#child.kill('SIGKILL');
  }
}

/** Runs a worker thread and terminates it after its report. */
async function endWorker(plan: Plan): Promise<FinalReport> {
  const worker = new Worker(SCRIPT, { workerData: plan });
  const words: FinalReport[] = [];
  const spoken = new Promise<void>((resolve) => {
    worker.on('message', (said: FinalReport) => {
      words.push(said);
      resolve();
    });
    worker.on('error', () => {}); // the expected cause of its end
  });
  const end = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  await Promise.race([spoken, end]);
  if (plan.how === 'wait') await worker.terminate();
  await end;
  const [last] = words;
  if (last === undefined) throw new Error('the worker ended without a report');
  return last;
}

/**
 * Checks that the process used the back end of these tests. That is a container and groups, or iommufd and device
 * files.
 */
function isOfTheBackend(t: ExecutionContext, { files }: FinalReport, what: string): void {
  const [own, others] = [/^\/dev\/iommu$|^\/dev\/vfio\/devices\//, /^\/dev\/vfio\/(vfio|\d+)$/];
  const [mine, theirs] = BACKEND === 'iommufd' ? [own, others] : [others, own];
  t.true(files.filter((file) => mine.test(file)).length > 1, `${what}: ${String(files)}`);
  t.false(
    files.some((file) => theirs.test(file)),
    `${what}: ${String(files)}`,
  );
}

/** Nothing of the ended process remains, and both devices work for this process. */
async function inherit(t: ExecutionContext, { edu, peer }: Plan, what: string): Promise<void> {
  t.is(await pinnedAtLast(), 0, `${what}: no page is left pinned`);
  t.deepEqual(openVfioFiles(), [], what);
  await using memory = await GuestMemory.create({ ram: [{ start: RAM_START, length: 4n << 20n }] });
  await using manager = newManager(memory);
  const engine = new Edu(await manager.open(edu));
  const bar = peerBar(await manager.open(peer));
  const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
  await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
  await window.mapToGuest(BAR);
  const bytes = pattern(what.length);
  await send(memory, engine, bytes, BAR);
  await engine.copy(BAR, SINK, bytes.length);
  t.deepEqual(memory.read(SINK, bytes.length), bytes, `${what}: the devices work`);
}

const DEATHS: readonly End[] = [
  { how: 'SIGKILL', when: 'start', count: 0 },
  { how: 'SIGKILL', when: 'map', count: 1 },
  { how: 'SIGKILL', when: 'unmap', count: 1 },
  { how: 'SIGKILL', when: 'map', count: 4 },
  { how: 'SIGKILL', when: 'running', count: 130 },
  { how: 'exit', when: 'unmap', count: 2 },
  { how: 'throw', when: 'unmap', count: 3 },
];

testWith(
  { edu: 1, ivshmem: 1 },
  'a process that dies leaves no page pinned, and its devices open again',
  async (t, devices) => {
    const plans = DEATHS.map((end) => planOf(devices, end));
    for await (const [plan, ending] of inTurn(plans)) {
      const what = `${plan.how} at ${plan.when} ${plan.count}`;
      const words = await ending.report(t);
      if (plan.when !== 'start') {
        t.true(words.pinned > 0, `${what}: memory was pinned`);
        isOfTheBackend(t, words, what);
      }
      if (plan.when === 'map' || plan.when === 'unmap') t.is(words[`${plan.when}s`], plan.count, what);
      await inherit(t, plan, what);
    }
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'a process that dies while memory is being pinned leaves no page pinned',
  async (t, devices) => {
    const pinned: number[] = [];
    let halfPinned = false;
    // On a loaded machine a process may see its first pinned page only after the last one was pinned. Twice the pages
    // take twice the time.
    for (let mebibytes = MEBIBYTES; mebibytes <= 4 * MEBIBYTES && !halfPinned; mebibytes *= 2) {
      const plans = HALF_PINNED.map((end) => planOf(devices, { ...end, when: 'pinning', mebibytes }));
      for await (const [plan, ending] of inTurn(plans)) {
        const words = await ending.report(t);
        pinned.push(words.pinned);
        isOfTheBackend(t, words, plan.how);
        halfPinned ||= words.pinned > 0 && words.pinned < (mebibytes << 20) / 4096;
        t.is(await pinnedAtLast(), 0, `${plan.how} with ${words.pinned} pages pinned: none is left`);
      }
    }
    t.true(halfPinned, `pinning was interrupted half-way at least once: ${String(pinned)}`);
    await inherit(t, planOf(devices, { how: 'wait', when: 'start', count: 0 }), 'half pinned');
  },
);

const HALF_PINNED = [
  { how: 'SIGKILL', count: 1 },
  { how: 'exit', count: ALL_PAGES / 8 },
  { how: 'SIGKILL', count: ALL_PAGES / 4 },
] as const;

const WORKER_ENDS: readonly End[] = [
  { how: 'wait', when: 'pinning', count: 1000, mebibytes: MEBIBYTES },
  { how: 'wait', when: 'running', count: 130 },
  { how: 'exit', when: 'map', count: 3 },
  { how: 'throw', when: 'unmap', count: 3 },
];

for (const end of WORKER_ENDS) {
  const what = `${end.how === 'wait' ? 'terminated' : end.how} at ${end.when} ${end.count}`;
  testWith(
    { edu: 1, ivshmem: 1 },
    `after a worker thread ends, its process can open the devices: ${what}`,
    async (t, devices) => {
      const plan = planOf(devices, end);
      const words = await endWorker(plan);
      t.true(words.pinned > 0, 'memory was pinned');
      isOfTheBackend(t, words, what);
      await inherit(t, plan, what);
    },
  );
}
