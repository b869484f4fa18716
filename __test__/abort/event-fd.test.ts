// EventFd.wait with a signal that aborts it.
import test, { type ExecutionContext } from 'ava';
import { getEventListeners } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { EventFd } from '../../ts/index.ts';
import { SimulatedDevice } from '../../ts/testing.ts';
import { requireSignal } from '../../ts/abort.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { until } from '../support/until.ts';

const REASON = new Error('the reason of the abort');

function eventFd(t: ExecutionContext): EventFd {
  const event = EventFd.create();
  t.teardown(() => event.close());
  return event;
}

const listenersOf = (signal: AbortSignal): number => getEventListeners(signal, 'abort').length;

test('reads no count with a signal that is aborted already', async (t) => {
  const event = eventFd(t);
  event.signal(3n);
  const signal = AbortSignal.abort(REASON);
  t.is(await t.throwsAsync(event.wait({ signal })), REASON);
  t.is(event.take(), 3n);
  t.is(listenersOf(signal), 0);
});

test('ends a wait with the reason of the signal, and leaves later counts to the next reader', async (t) => {
  const event = eventFd(t);
  const controller = new AbortController();
  const { signal } = controller;
  const waiting = event.wait({ signal });
  t.is(listenersOf(signal), 1);
  controller.abort(REASON);
  event.signal(5n); // before the promise is settled
  t.is(await t.throwsAsync(waiting), REASON);
  t.is(listenersOf(signal), 0);
  t.is(event.take(), 5n);
});

test('does not end a wait or a listener that begins between the abort and the rejection', async (t) => {
  const event = eventFd(t);
  const controller = new AbortController();
  const first = event.wait({ signal: controller.signal });
  controller.abort(REASON);
  const second = event.wait();
  t.is(await t.throwsAsync(first), REASON);
  await turn();
  event.signal(2n);
  t.is(await second, 2n);

  const other = new AbortController();
  const third = event.wait({ signal: other.signal });
  other.abort(REASON);
  const received: bigint[] = [];
  event.onSignal((count) => received.push(count));
  t.is(await t.throwsAsync(third), REASON);
  await turn();
  event.signal(4n);
  await until(() => received.length > 0, 'the listener receives the count');
  t.deepEqual(received, [4n]);
});

test('keeps a listener that replaced the wait before the abort', async (t) => {
  const event = eventFd(t);
  const controller = new AbortController();
  const waiting = event.wait({ signal: controller.signal });
  const counts: bigint[] = [];
  event.onSignal((count) => void counts.push(count));
  controller.abort(REASON);
  t.is(await t.throwsAsync(waiting), REASON);
  event.signal(2n);
  await until(() => counts.length > 0, 'the listener is called');
  t.deepEqual(counts, [2n]);
});

test('rejects a pending wait when the event is closed after an aborted one', async (t) => {
  const event = EventFd.create();
  const controller = new AbortController();
  const first = event.wait({ signal: controller.signal });
  controller.abort(REASON);
  const second = event.wait();
  await t.throwsAsync(first);
  event.close();
  await rejectsCode(t, second, 'ERR_CLOSED');
});

test('leaves no listener on the signal after a count, a count in advance and a close', async (t) => {
  const { signal } = new AbortController();
  const event = EventFd.create();
  event.signal(1n);
  t.is(await event.wait({ signal }), 1n);
  t.is(listenersOf(signal), 0);
  const waiting = event.wait({ signal });
  event.signal(7n);
  t.is(await waiting, 7n);
  t.is(listenersOf(signal), 0);
  const closed = event.wait({ signal });
  event.close();
  await rejectsCode(t, closed, 'ERR_CLOSED');
  t.is(listenersOf(signal), 0);
});

test('rejects a signal that is not an AbortSignal, before anything happens', async (t) => {
  for (const signal of [null, 5, 'now', {}, { aborted: true }, new EventTarget(), new AbortController()]) {
    throwsCode(t, () => requireSignal(signal as never), 'ERR_INVALID_ARGUMENT', String(signal));
  }
  const event = eventFd(t);
  event.signal(1n);
  await rejectsCode(t, event.wait({ signal: {} as never }), 'ERR_INVALID_ARGUMENT');
  t.is(event.take(), 1n);
  const device = new SimulatedDevice({ bdf: '0000:00:04.0' });
  t.teardown(() => device.close());
  await rejectsCode(t, device.reset({ signal: {} as never }), 'ERR_INVALID_ARGUMENT');
});
