/** Events: every signal is counted and delivered, and a listener does not keep the process alive. */
import test, { type ExecutionContext } from 'ava';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync, readlinkSync, writeSync } from 'node:fs';
import { once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { EventFd, nativeEventFdOf } from '../ts/event-fd.ts';
import { throwsCode } from './support/errors.ts';

const LISTENER = new URL('./support/event-listener.ts', import.meta.url);
const LOADER = ['--import=./scripts/typescript/register.mjs'];
/** Turns of the event loop within which an unwanted call would arrive. */
const TURNS = 200;

function event(t: ExecutionContext): EventFd {
  const made = EventFd.create();
  t.teardown(() => made.close());
  return made;
}

/** Collects the counts of a listener until enough arrived. The turns keep the process alive; listening does not. */
async function collected(counts: readonly bigint[], total: bigint): Promise<readonly bigint[]> {
  while (counts.reduce((sum, count) => sum + count, 0n) < total) await turn();
  return counts;
}

async function turns(count: number): Promise<void> {
  for (let made = 0; made < count; made++) await turn();
}

/** A way of listening, as a process. */
function listener(how: string): { stdout: string; stderr: string; status: number | null } {
  const args = [...LOADER, fileURLToPath(LISTENER), how];
  return spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000 });
}

test('adds up signals until they are read', (t) => {
  const counted = event(t);
  t.is(counted.take(), 0n);
  counted.signal();
  counted.signal(41n);
  counted.signal(0n);
  t.is(counted.take(), 42n);
  t.is(counted.take(), 0n);
});

test('counts signals through the file descriptor', (t) => {
  const counted = event(t);
  writeSync(counted.fd, new BigUint64Array([5n]));
  t.is(counted.take(), 5n);
  t.regex(readlinkSync(`/proc/self/fd/${counted.fd}`), /eventfd/);
});

test('rejects a count that would overflow, and keeps the current one', (t) => {
  const counted = event(t);
  counted.signal((1n << 64n) - 2n);
  throwsCode(t, () => counted.signal(), 'ERR_OUT_OF_RANGE');
  t.is(counted.take(), (1n << 64n) - 2n);
});

test('rejects an invalid count, callback and event', (t) => {
  const counted = event(t);
  for (const count of [-1n, (1n << 64n) - 1n, 1n << 70n, 1, '1', null]) {
    throwsCode(t, () => counted.signal(count as bigint), 'ERR_INVALID_ARGUMENT', String(count));
  }
  throwsCode(t, () => counted.onSignal('callback' as unknown as () => void), 'ERR_INVALID_ARGUMENT');
  for (const none of [null, undefined, 7, {}, Object.create(EventFd.prototype)]) {
    throwsCode(t, () => nativeEventFdOf(none as EventFd), 'ERR_INVALID_ARGUMENT');
  }
  t.is(counted.take(), 0n);
});

test('delivers signals of a busy event loop as one call with their count', async (t) => {
  const counted = event(t);
  const counts: bigint[] = [];
  counted.onSignal((count) => counts.push(count));
  for (let signals = 0; signals < 100; signals++) counted.signal();
  t.deepEqual(counts, [], 'signal() does not call listeners');
  t.deepEqual(await collected(counts, 100n), [100n]);
  counted.signal(7n);
  t.deepEqual(await collected(counts, 107n), [100n, 7n]);
});

test('delivers an existing count to a new listener', async (t) => {
  const counted = event(t);
  const counts: bigint[] = [];
  counted.signal(3n);
  counted.onSignal((count) => counts.push(count));
  t.deepEqual(await collected(counts, 3n), [3n]);
});

test('counts each of ten thousand signals between turns of the event loop', async (t) => {
  const events = Array.from({ length: 5 }, () => event(t));
  const sums = events.map(() => 0n);
  let calls = 0;
  for (const [index, one] of events.entries()) {
    one.onSignal((count) => {
      sums[index] = (sums[index] ?? 0n) + count;
      calls++;
    });
  }
  for (let signals = 0; signals < 10_000; signals++) {
    for (const one of events) one.signal();
    if (signals % 7 === 0) await turn();
  }
  while (sums.some((sum) => sum < 10_000n)) await turn();
  await turns(TURNS);
  t.deepEqual(
    sums,
    events.map(() => 10_000n),
  );
  t.log(`${calls} calls for ${5 * 10_000} signals`);
});

test('keeps the count after the listener is removed', async (t) => {
  const counted = event(t);
  const counts: bigint[] = [];
  counted.onSignal((count) => counts.push(count));
  counted.signal(4n);
  counted.onSignal(undefined);
  counted.signal(5n);
  await turns(TURNS);
  t.deepEqual(counts, []);
  t.is(counted.take(), 9n);
  counted.signal(6n);
  counted.onSignal((count) => counts.push(count * 100n));
  t.deepEqual(await collected(counts, 600n), [600n]);
});

test('replaces the first callback', async (t) => {
  const counted = event(t);
  const [first, second]: [bigint[], bigint[]] = [[], []];
  counted.onSignal((count) => first.push(count));
  counted.signal();
  counted.onSignal((count) => second.push(count));
  t.deepEqual(await collected(second, 1n), [1n]);
  t.deepEqual(first, []);
});

test('supports a callback that stops, reads, closes or adds listeners during a delivery', async (t) => {
  const first = event(t);
  const [stopped, taken, closed, renewed] = [event(t), event(t), event(t), event(t)];
  const counts: bigint[] = [];
  let took = 0n;
  const never = (): void => t.fail('it was stopped before it was its turn');
  first.onSignal(() => {
    stopped.onSignal(undefined);
    took = taken.take();
    closed.close();
    renewed.onSignal(undefined);
    renewed.onSignal((count) => counts.push(count));
  });
  for (const one of [stopped, taken, closed, renewed]) one.onSignal(never);
  // The watcher's thread sees them in this order, and all before this thread asks.
  for (const one of [first, stopped, taken, closed, renewed]) {
    one.signal(2n);
    for (const until = Date.now() + 20; Date.now() < until;);
  }
  t.deepEqual(await collected(counts, 2n), [2n]);
  await turns(TURNS);
  t.is(stopped.take(), 2n);
  t.is(took, 2n);
  t.is(taken.take(), 0n);
  throwsCode(t, () => closed.take(), 'ERR_CLOSED');
});

test('turns an error of a listener into an uncaught exception, and calls the other listeners', (t) => {
  const { stdout, stderr, status } = listener('throw');
  t.is(status, 0, stderr);
  t.deepEqual(JSON.parse(stdout), ['first 2', 'second 3', 'uncaught from the first']);
});

test('rejects every call after closing, except closing again', (t) => {
  const counted = EventFd.create();
  counted.onSignal(() => {});
  counted.signal();
  counted.close();
  counted.close();
  for (const call of [
    () => counted.fd,
    () => counted.signal(),
    () => counted.take(),
    () => counted.onSignal(() => {}),
    () => counted.onSignal(undefined),
    () => nativeEventFdOf(counted),
  ]) {
    throwsCode(t, call, 'ERR_CLOSED');
  }
});

test('does not keep a listening process alive', (t) => {
  const { stdout, stderr, status } = listener('idle');
  t.is(status, 0, stderr);
  t.is(stdout, 'listening\n');
});

test('supports a listener that ends its process', (t) => {
  const { stderr, status } = listener('exit');
  t.is(status, 7, stderr);
});

/** The threads that watch events, and the open event files of this process. */
function watching(): { threads: number; descriptors: number } {
  const names = readdirSync('/proc/self/task').map((id) => readFileSync(`/proc/self/task/${id}/comm`, 'utf8').trim());
  const files = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ''; // the descriptor of the folder itself
    }
  });
  return {
    threads: names.filter((name) => name === 'peerdma-events').length,
    descriptors: files.filter((file) => file.startsWith('anon_inode:[event')).length,
  };
}

for (const [how, words] of [
  ['idle', 'listening'],
  ['storm', 'delivered'],
  ['busy', 'busy'],
] as const) {
  test.serial(
    `a worker that listens (${how}) ends, by itself or from outside, and leaves nothing behind`,
    async (t) => {
      t.timeout(120_000);
      const before = watching();
      for (let round = 0; round < 5; round++) {
        const worker = new Worker(LISTENER, { workerData: how, execArgv: LOADER });
        const ended = once(worker, 'exit');
        t.is((await once(worker, 'message'))[0], words);
        if (how !== 'idle') await worker.terminate();
        const [status] = await ended;
        t.is(status, how === 'idle' ? 0 : 1);
      }
      t.deepEqual(watching(), before);
    },
  );
}

test.serial('leaks nothing when events are created and closed while they have listeners', async (t) => {
  const counts: bigint[] = [];
  const lasting = event(t);
  lasting.onSignal((count) => counts.push(count));
  lasting.signal();
  await collected(counts, 1n); // the watcher's thread is there from now on
  const before = watching();
  for (let round = 0; round < 1000; round++) {
    const passing = EventFd.create();
    passing.onSignal(() => {});
    passing.signal();
    if (round % 10 === 0) await turn();
    if (round % 2 === 0) passing.onSignal(undefined);
    passing.close();
  }
  t.deepEqual(watching(), before);
});
