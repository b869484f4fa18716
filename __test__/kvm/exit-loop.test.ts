/**
 * The loop that answers exits, on a machine that posts them by request.
 */
import test from 'ava';
import { PerformanceObserver } from 'node:perf_hooks';
import type { NativeMachine } from '#native';
import { ExitLoop, type ExitReceiver } from '../../ts/kvm/exit-loop.ts';
import { PortSpace } from '../../ts/kvm/handlers.ts';

const PORT_READ = 1;
const PORT_WRITE = 2;
const MEMORY_READ = 3;
const STOPPED = 5;
const TURN_OVER = -2;
const IDLE = -1;

/** A loop, with the results of `nextExit` in their order; then there is none. */
function loopOf(
  results: number[],
  memory: () => undefined = () => undefined,
  stopped?: () => void,
): { loop: ExitLoop; events: string[] } {
  const events: string[] = [];
  const record = (event: string) => () => void events.push(event);
  const loop = new ExitLoop(new PortSpace(), memory);
  const receiver: ExitReceiver = {
    failed: (_access, error) => void events.push(`${error.message}`),
    unclaimed: () => true,
    stopped: stopped ?? record('stopped'),
  };
  const next = (): number => {
    events.push('next');
    return results.shift() ?? IDLE;
  };
  const cells = new ArrayBuffer(64);
  new Uint32Array(cells)[0] = stopped === undefined ? MEMORY_READ : STOPPED;
  loop.attach({ exitCells: () => cells, nextExit: next, answerExit: next } as unknown as NativeMachine, receiver);
  return { loop, events };
}

test('the event loop has a turn when the native core asks for it, and then exits go on', async (t) => {
  const { loop, events } = loopOf([0, TURN_OVER]);
  setImmediate(() => events.push('a turn'));
  loop.drain();
  t.deepEqual(events, ['next', 'next']);
  await new Promise((resolve) => setImmediate(resolve));
  t.deepEqual(events, ['next', 'next', 'a turn', 'next']);
});

test('an error whose text cannot be used fails the access with a plain text', (t) => {
  const fails = (): never => {
    throw Object.assign(new Error('no text'), { message: Symbol('no text') });
  };
  const { loop, events } = loopOf([0], fails);
  loop.drain();
  t.deepEqual(events, ['next', 'its error has no text', 'next']);
});

test('an exception of the receiver fails the exit, and the loop goes on', (t) => {
  const { loop, events } = loopOf([0, 0], undefined, () => {
    throw new Error('the receiver fails');
  });
  loop.drain();
  t.deepEqual(events, ['next', 'the receiver fails', 'next', 'the receiver fails', 'next']);
});

test('an error while the handler of an address is looked for fails the access', (t) => {
  const fails = (): never => {
    throw new Error('no handler');
  };
  const { loop, events } = loopOf([0], fails);
  loop.drain();
  t.deepEqual(events, ['next', 'no handler', 'next']);
});

test('an exit to a port allocates nothing', async (t) => {
  const ports = new PortSpace();
  ports.add(0x3f8, 1, { read: () => 42, write: () => {} });
  const loop = new ExitLoop(ports, () => undefined);
  const cells = new Uint32Array(16);
  let left = 0;
  const next = (): number => {
    cells[0] = left % 2 === 0 ? PORT_READ : PORT_WRITE;
    return left-- > 0 ? 0 : IDLE;
  };
  [cells[1], cells[2]] = [1, 0x3f8];
  const machine = { exitCells: () => cells.buffer, nextExit: next, answerExit: next } as unknown as NativeMachine;
  loop.attach(machine, {} as ExitReceiver);
  const drain = (exits: number): void => {
    left = exits;
    loop.drain();
  };
  drain(100_000); // compiles it
  let collections = 0;
  const observer = new PerformanceObserver((list) => (collections += list.getEntries().length));
  observer.observe({ entryTypes: ['gc'] });
  drain(5_000_000);
  await new Promise((resolve) => setTimeout(resolve, 100)); // the observer is notified later
  observer.disconnect();
  // A view an exit would cause some thirty. The test runner may cause one.
  t.true(collections < 5, `${collections} collections`);
  t.is(loop.counts.port, 5_100_000);
});
