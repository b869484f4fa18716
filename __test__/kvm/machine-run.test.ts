/**
 * The runs of a virtual machine: how they end, pause and fail, on a machine without processors.
 */
import test from 'ava';
import { MachineRun } from '../../ts/kvm/machine-run.ts';

/** A machine whose processors are paused when the test settles that. */
function machine(): { run: MachineRun; calls: string[]; paused: () => void } {
  const calls: string[] = [];
  const waiting: (() => void)[] = [];
  const run = new MachineRun({
    run: () => void calls.push('run'),
    requestPause: () => void calls.push('pause'),
    pauseAsync: () => new Promise<void>((resolve) => waiting.push(resolve)),
    reset: () => void calls.push('reset'),
  });
  return { run, calls, paused: () => waiting.splice(0).forEach((resolve) => resolve()) };
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
