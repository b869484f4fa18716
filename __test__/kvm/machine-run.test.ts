/**
 * The runs of a virtual machine: how they end, pause and fail, on a machine without processors.
 */
import test from 'ava';
import { getEventListeners } from 'node:events';
import { MachineRun } from '../../ts/kvm/machine-run.ts';

type Processors = ConstructorParameters<typeof MachineRun>[0];

/** A machine whose processors are paused when the test settles that. As in the native core, a failure settles it. */
function machine(): { run: MachineRun; calls: string[]; paused: () => void; processors: Processors } {
  const calls: string[] = [];
  const waiting: (() => void)[] = [];
  const paused = (): void => waiting.splice(0).forEach((resolve) => resolve());
  const processors = {
    run: () => void calls.push('run'),
    requestPause: () => void calls.push('pause'),
    pauseAsync: () => new Promise<void>((resolve) => waiting.push(resolve)),
    fail: () => {
      calls.push('fail');
      paused();
    },
    reset: () => void calls.push('reset'),
  };
  const run = new MachineRun(processors, processors);
  return { run, calls, paused, processors };
}

test('a run ends with its first reason when the processors are paused', async (t) => {
  const { run, paused } = machine();
  const result = run.start();
  run.stop('first');
  run.stop('second');
  t.is(run.state, 'running');
  t.throws(() => run.resume(), { code: 'ERR_INVALID_ARGUMENT' });
  await t.throwsAsync(run.pause(), { code: 'ERR_INVALID_ARGUMENT', message: /the run is ending/ });
  await t.throwsAsync(run.start(), { code: 'ERR_INVALID_ARGUMENT' });
  paused();
  t.is(await result, 'first');
  t.is(run.state, 'stopped');
});

test('a failure after a stop rejects the run', async (t) => {
  const { run, paused } = machine();
  const result = run.start();
  run.stop('end');
  const error = new Error('the handler fails');
  run.fail(error);
  t.is(await t.throwsAsync(result), error);
  paused();
  t.is(run.state, 'failed');
  const again = await t.throwsAsync(run.start(), { code: 'ERR_INVALID_ARGUMENT' });
  t.is(again.cause, error);
});

test('a failure during a pause rejects the pause', async (t) => {
  const { run } = machine();
  const result = run.start();
  const pause = run.pause();
  const error = new Error('the handler fails');
  run.fail(error);
  t.is(await t.throwsAsync(pause), error);
  t.is(await t.throwsAsync(result), error);
});

test.serial('a failure after a pause is an unhandled rejection, if nobody awaits the run', async (t) => {
  const { run, paused } = machine();
  void run.start();
  const pause = run.pause();
  paused();
  await pause;
  run.resume();
  const error = new Error('the handler fails');
  const unhandled: unknown[] = [];
  const listeners = process.listeners('unhandledRejection');
  process.removeAllListeners('unhandledRejection').on('unhandledRejection', (one) => unhandled.push(one));
  run.fail(error);
  await new Promise((resolve) => setImmediate(resolve));
  process.removeAllListeners('unhandledRejection');
  for (const one of listeners) process.on('unhandledRejection', one);
  t.deepEqual(unhandled, [error]);
});

test('closing ends the wait of a pause', async (t) => {
  const { run } = machine();
  const result = run.start();
  const pause = run.pause();
  run.close();
  await t.throwsAsync(pause, { code: 'ERR_CLOSED' });
  await t.throwsAsync(result, { code: 'ERR_CLOSED' });
});

test('a machine that is resumed before its pause has ended runs', async (t) => {
  const { run, calls, paused } = machine();
  const result = run.start();
  const pause = run.pause();
  run.resume();
  t.deepEqual(calls, ['run', 'pause', 'run']);
  t.is(run.state, 'running');
  paused();
  await pause;
  t.is(run.state, 'running');
  run.stop('end');
  paused();
  t.is(await result, 'end');
});

test('a processor that has shut down requires a reset', async (t) => {
  const { run, calls, paused } = machine();
  const result = run.start();
  run.stop('triple-fault');
  run.requireReset();
  paused();
  t.is(await result, 'triple-fault');
  await t.throwsAsync(run.start(), { code: 'ERR_INVALID_ARGUMENT', message: /Call reset first/ });
  run.reset();
  void run.start();
  t.deepEqual(calls, ['run', 'pause', 'reset', 'run']);
  run.close();
});

test('closing rejects a run, also one that nobody awaits', async (t) => {
  const { run } = machine();
  const result = run.start();
  run.close();
  await new Promise((resolve) => setImmediate(resolve)); // an unhandled rejection would fail the test
  await t.throwsAsync(result, { code: 'ERR_CLOSED' });
  run.fail(new Error('later'));
  t.is(run.state, 'closed');
});

test('an abort ends a run with its reason when the processors are paused, and the machine can run again', async (t) => {
  const { run, calls, paused } = machine();
  const controller = new AbortController();
  const result = run.start({ signal: controller.signal });
  const reason = new Error('the user has quit');
  controller.abort(reason);
  run.stop('later');
  await new Promise((resolve) => setImmediate(resolve));
  t.is(run.state, 'running');
  paused();
  t.is(await t.throwsAsync(result), reason);
  t.is(run.state, 'stopped');
  void run.start();
  t.deepEqual(calls, ['run', 'pause', 'run']);
  run.close();
});

test('a run with an aborted signal does not start', async (t) => {
  const { run, calls } = machine();
  await t.throwsAsync(run.start({ signal: AbortSignal.abort(new Error('no')) }), { message: 'no' });
  t.is(run.state, 'stopped');
  t.deepEqual(calls, []);
  await t.throwsAsync(run.start({ signal: 5 as never }), { code: 'ERR_INVALID_ARGUMENT' });
});

test('a run whose signal or native call throws does not start, and leaves no listener', async (t) => {
  const { run, calls, processors } = machine();
  const fail = (): never => {
    throw new Error('it fails');
  };
  const signal = { aborted: false, reason: undefined, addEventListener: fail, removeEventListener: () => {} };
  await t.throwsAsync(run.start({ signal }), { message: 'it fails' });
  t.deepEqual([run.state, calls], ['stopped', []]);
  const { signal: usable } = new AbortController();
  const { run: nativeRun } = processors;
  processors.run = fail;
  await t.throwsAsync(run.start({ signal: usable }), { message: 'it fails' });
  t.is(run.state, 'stopped');
  t.is(getEventListeners(usable, 'abort').length, 0);
  processors.run = nativeRun;
  void run.start();
  t.is(run.state, 'running');
  run.close();
});

test('a signal that cannot remove its listener does not keep a run from its end', async (t) => {
  const { run, paused } = machine();
  const removeEventListener = (): never => {
    throw new Error('it fails');
  };
  const signal = { aborted: false, reason: undefined, addEventListener: () => {}, removeEventListener };
  const result = run.start({ signal });
  run.stop('end');
  paused();
  t.is(await result, 'end');
});

test('a pause whose wait cannot start continues the run', async (t) => {
  const { run, calls, processors } = machine();
  void run.start();
  processors.pauseAsync = () => Promise.reject(new Error('no thread'));
  await t.throwsAsync(run.pause(), { message: 'no thread' });
  t.is(run.state, 'running');
  t.deepEqual(calls, ['run', 'pause', 'run']);
  run.close();
});

test('a run that has ended leaves no listener, and an abort after its stop has no effect', async (t) => {
  const ends: ((run: MachineRun) => void)[] = [(run) => run.stop('end'), (run) => run.fail(new Error('it fails'))];
  for (const end of [...ends, (run: MachineRun) => run.close()]) {
    const { run, paused } = machine();
    const controller = new AbortController();
    const result = run.start({ signal: controller.signal });
    t.is(getEventListeners(controller.signal, 'abort').length, 1);
    end(run);
    if (run.state === 'running') controller.abort(new Error('too late'));
    paused();
    const error = await result.then(
      (reason) => reason,
      (thrown: Error) => thrown.message,
    );
    t.not(error, 'too late');
    t.is(getEventListeners(controller.signal, 'abort').length, 0);
  }
});

test('an abort of a pause continues the run', async (t) => {
  const { run, calls, paused } = machine();
  const result = run.start();
  const controller = new AbortController();
  const pause = run.pause({ signal: controller.signal });
  const reason = new Error('not now');
  controller.abort(reason);
  t.is(await t.throwsAsync(pause), reason);
  t.is(run.state, 'running');
  t.deepEqual(calls, ['run', 'pause', 'run']);
  await t.throwsAsync(run.pause({ signal: controller.signal }), { is: reason });
  t.deepEqual(calls, ['run', 'pause', 'run']);
  run.stop('end');
  paused();
  t.is(await result, 'end');
});

test('an abort of a pause does not continue a later pause, nor a run that is ending', async (t) => {
  const { run, calls, paused } = machine();
  const result = run.start();
  const controller = new AbortController();
  const first = run.pause({ signal: controller.signal });
  run.resume();
  const second = run.pause();
  controller.abort(new Error('the first'));
  await t.throwsAsync(first, { message: 'the first' });
  t.is(run.state, 'paused');
  paused();
  await second;
  run.resume();
  const other = new AbortController();
  const third = run.pause({ signal: other.signal });
  run.stop('end');
  other.abort(new Error('the third'));
  await t.throwsAsync(third, { message: 'the third' });
  t.deepEqual(calls, ['run', 'pause', 'run', 'pause', 'run', 'pause', 'pause']);
  paused();
  t.is(await result, 'end');
});
