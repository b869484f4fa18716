// Calls that a signal aborts: before they start, while they wait, and while they run.
import test from 'ava';
import { getEventListeners } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { SCENES } from './scenes.ts';

const REASON = { text: 'the reason of the abort' };

/** The value with which a promise rejects; the text `fulfilled` otherwise. */
const thrownBy = (pending: Promise<unknown>): Promise<unknown> =>
  pending.then(
    () => 'fulfilled',
    (error: unknown) => error,
  );

const listenersOf = (signal: AbortSignal): number => getEventListeners(signal, 'abort').length;

for (const [name, prepare] of Object.entries(SCENES)) {
  test.serial(`${name} does nothing with a signal that is aborted already`, async (t) => {
    const scene = await prepare(t);
    const before = scene.memory.inspect();
    const signal = AbortSignal.abort(REASON);
    t.is(await thrownBy(scene.start({ signal })), REASON);
    t.deepEqual(scene.log, []);
    t.deepEqual(scene.memory.inspect(), before);
    t.is(listenersOf(signal), 0);
  });

  test.serial(`${name} rejects at once when it is aborted while it waits, and never starts`, async (t) => {
    const scene = await prepare(t);
    const block = scene.block();
    const controller = new AbortController();
    const { signal } = controller;
    const pending = scene.start({ signal });
    for (let turns = 0; turns < 10; turns++) await turn();
    t.is(listenersOf(signal), 1);
    controller.abort(REASON);
    t.is(await thrownBy(pending), REASON);
    t.is(listenersOf(signal), 0);
    block.release();
    await block.ended;
    for (let turns = 0; turns < 10; turns++) await turn();
    t.deepEqual(scene.log, block.log);
  });

  test.serial(`${name} undoes what it can, or completes it, when it is aborted while it runs`, async (t) => {
    for (const entry of Object.keys((await prepare(t)).aborted)) {
      const scene = await prepare(t);
      const before = scene.memory.inspect();
      const controller = new AbortController();
      const { signal } = controller;
      scene.onEntry = (one) => one === entry && controller.abort(REASON);
      t.is(await thrownBy(scene.start({ signal })), REASON, entry);
      t.deepEqual(scene.log, scene.aborted[entry], entry);
      t.is(listenersOf(signal), 0, entry);
      if (scene.undoes.includes(entry)) t.deepEqual(scene.memory.inspect(), before, entry);
    }
  });

  test.serial(`${name} ignores a signal that is aborted after it, and leaves no listener on it`, async (t) => {
    const scene = await prepare(t);
    const controller = new AbortController();
    const { signal } = controller;
    await scene.start({ signal });
    t.is(listenersOf(signal), 0);
    t.deepEqual(scene.log, scene.whole);
    controller.abort(REASON);
    for (let turns = 0; turns < 10; turns++) await turn();
    t.deepEqual(scene.log, scene.whole);
  });
}
