// A back end that replaces another one gets the memory and the queues of that moment, whatever happens on the way.
import test, { type ExecutionContext } from 'ava';
import { execFile } from 'node:child_process';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { AddressRange, MemoryFile, UnixSocket } from '../../ts/index.ts';
import { type VhostUserState, VhostUserTarget } from '../../ts/vhost-user.ts';
import { rejectsCode } from '../support/errors.ts';
import { scratchFolder } from '../support/scratch.ts';
import { until } from '../support/until.ts';
import { BIT, type BackEndOptions, type Fault, TestBackEnd } from './support/back-end.ts';
import { MIB, guestMemory, queueAt } from './support/scene.ts';

const RECONNECT = 1;
const QUEUE = 0x1000n;
const USED_INDEX = QUEUE + 0x202n;

/** Accepts connections, each for a back end with the next options. Without options, it has no fault. */
async function listen(
  t: ExecutionContext,
  options: BackEndOptions[],
): Promise<{ path: string; backEnds: TestBackEnd[] }> {
  const backEnds: TestBackEnd[] = [];
  const server = createServer({ pauseOnConnect: true }, (accepted) => {
    const { fd } = (accepted as unknown as { _handle: { fd: number } })._handle;
    backEnds.push(new TestBackEnd(UnixSocket.fromFd(fd), options.shift() ?? {}));
    accepted.destroy();
  });
  const path = join(scratchFolder(t), 'back-end.sock');
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.teardown(() => {
    server.close();
    for (const backEnd of backEnds) backEnd.die();
  });
  return { path, backEnds };
}

test('a new back end gets memory, queues and features, also those of the time without one', async (t) => {
  const { path, backEnds } = await listen(t, []);
  const target = await VhostUserTarget.connect(path, { reconnect: RECONNECT });
  t.teardown(() => target.close());
  const memory = await guestMemory(t);
  await memory.dmaMappers.addDmaMapper(target);
  await target.setQueue(0, { ...queueAt(t, QUEUE), base: 3 });
  await target.setQueue(1, queueAt(t, 0x2000n));
  memory.write(USED_INDEX, Uint8Array.of(0x34, 0x12));
  const states: VhostUserState[] = [];
  target.onStateChange((state) => states.push(state));
  backEnds[0]?.die();
  await until(() => target.state === 'disconnected', 'the end is known');
  using file = MemoryFile.create(MIB);
  const hot = await memory.regions.addRegion({ name: 'hot', range: AddressRange.of(1n << 32n, MIB) });
  await hot.addMapping({ backing: { file, offset: 0n } });
  await hot.mapToGuest();
  t.is(await target.stopQueue(1), 0, 'the index of its used ring');
  await until(() => target.state === 'connected', 'the next back end is set up');
  const next = backEnds[1];
  t.deepEqual(next?.ranges(), ['0x0..0x400000', '0x100000000..0x100100000']);
  t.like(next?.queues[0], { base: 0x1234, size: 8, started: true, enabled: true });
  t.is(next?.queues[0]?.kick?.take(), 1n, 'a signal may be lost with the back end');
  t.is(next?.queues[1]?.kick, undefined);
  t.is(next?.inflight?.length, 4096n, 'the record of the first one');
  t.deepEqual(states, ['disconnected', 'connected']);
  const requests = next?.requests ?? [];
  t.is(requests.slice(0, requests.indexOf('SET_INFLIGHT_FD')).filter((name) => name === 'SET_VRING_CALL').length, 4);
  await hot.remove();
  t.deepEqual(next?.ranges(), ['0x0..0x400000']);
  await target.close();
  t.is(target.state, 'closed');
});

test('without the option, a target whose back end has ended rejects memory', async (t) => {
  const { path, backEnds } = await listen(t, []);
  const target = await VhostUserTarget.connect(path);
  t.teardown(() => target.close());
  const memory = await guestMemory(t);
  const joined = await memory.dmaMappers.addDmaMapper(target);
  backEnds[0]?.die();
  await until(() => target.state === 'disconnected', 'the end is known');
  const hot = await memory.regions.addRegion({ name: 'hot', range: AddressRange.of(1n << 32n, MIB) });
  using file = MemoryFile.create(MIB);
  await hot.addMapping({ backing: { file, offset: 0n } });
  await rejectsCode(t, hot.mapToGuest(), 'ERR_DISCONNECTED');
  await rejectsCode(t, target.setQueue(0, queueAt(t, QUEUE)), 'ERR_DISCONNECTED');
  await rejectsCode(t, target.readConfig(0, 1), 'ERR_DISCONNECTED');
  await joined.remove();
  await hot.mapToGuest();
  await target.close();
  await rejectsCode(t, target.readConfig(0, 1), 'ERR_CLOSED');
});

test('a new back end without the features of the driver, or with too few slots, is tried again', async (t) => {
  const { path, backEnds } = await listen(t, [{}, { features: BIT.protocolFeatures }, { slots: 0 }, {}]);
  const target = await VhostUserTarget.connect(path, { reconnect: RECONNECT, features: BIT.version1 });
  t.teardown(() => target.close());
  const memory = await guestMemory(t);
  await memory.dmaMappers.addDmaMapper(target);
  const changes: string[] = [];
  target.onStateChange((state) => changes.push(`${state} ${target.failure?.code}`));
  backEnds[0]?.die();
  await until(() => changes.at(-1)?.startsWith('connected') === true, 'the fourth is set up');
  t.deepEqual(changes, [
    'disconnected ERR_DISCONNECTED',
    'failed ERR_UNSUPPORTED',
    'disconnected ERR_UNSUPPORTED',
    'failed ERR_MAPPING_LIMIT',
    'disconnected ERR_MAPPING_LIMIT',
    'connected undefined',
  ]);
  t.is(target.failure, undefined);
  t.deepEqual(backEnds[3]?.ranges(), ['0x0..0x400000']);
  await target.close();
});

/** The requests of the set-up of a new back end, with memory and a queue. */
const SET_UP = 20;

for (const fault of ['die', 'refuse', 'hang after it', 'noise'] satisfies Fault[]) {
  test(`a new back end that fails with "${fault}" at each message of its set-up is replaced`, async (t) => {
    for (let faultAt = 0; faultAt < SET_UP; faultAt++) {
      const { path, backEnds } = await listen(t, [{}, { fault, faultAt }]);
      const target = await VhostUserTarget.connect(path, { reconnect: RECONNECT, timeout: 200 });
      t.teardown(() => target.close());
      const memory = await guestMemory(t);
      const joined = await memory.dmaMappers.addDmaMapper(target);
      await target.setQueue(0, queueAt(t, QUEUE));
      const codes: (string | undefined)[] = [];
      target.onStateChange(() => codes.push(target.failure?.code));
      backEnds[0]?.die();
      await until(() => backEnds.length === 2, 'the second back end');
      if (fault === 'hang after it') {
        await until(() => codes.includes('ERR_TIMEOUT'), 'the hang is found');
        t.is(backEnds.length, 2, 'no other back end gets the memory before the end of this one');
        backEnds[1]?.die();
      }
      await until(() => backEnds.length === 3 && target.state === 'connected', `the third after ${faultAt}`);
      t.deepEqual(backEnds[2]?.ranges(), ['0x0..0x400000']);
      t.like(backEnds[2]?.queues[0], { started: true, enabled: true });
      t.is(backEnds[2]?.requests.length, SET_UP);
      await joined.remove();
      await target.close();
    }
  });
}

test('turns an error of the callback for changes into an uncaught exception', async (t) => {
  const program = '__test__/vhost-user/support/throwing-callback.ts';
  const args = ['--import=./scripts/typescript/register.mjs', program];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  t.deepEqual(JSON.parse(stdout), [
    'uncaughtException failed',
    'uncaughtException disconnected',
    'uncaughtException closed',
    'ERR_INVALID_REPLY closed',
  ]);
});

test('the signal of the first connection does not end later ones', async (t) => {
  const { path, backEnds } = await listen(t, []);
  const controller = new AbortController();
  const target = await VhostUserTarget.connect(path, { reconnect: RECONNECT, signal: controller.signal });
  t.teardown(() => target.close());
  controller.abort();
  backEnds[0]?.die();
  await until(() => backEnds.length === 2 && target.state === 'connected', 'the next one');
  t.is(target.failure, undefined);
});

test('closing ends attempts to connect again', async (t) => {
  const { path, backEnds } = await listen(t, []);
  const target = await VhostUserTarget.connect(path, { reconnect: 5 });
  t.teardown(() => target.close());
  backEnds[0]?.die();
  await until(() => target.state === 'disconnected', 'the end is known');
  await target.close();
  await new Promise((resolve) => setTimeout(resolve, 30));
  t.is(backEnds.length, 1);
  t.is(target.state, 'closed');
});

test('an abort ends a connection whose back end does not reply', async (t) => {
  const { path, backEnds } = await listen(t, [{ fault: 'hang', faultAt: 0 }]);
  const reason = new Error('enough');
  const signal = new AbortController();
  const connecting = VhostUserTarget.connect(path, { signal: signal.signal });
  await until(() => backEnds.length === 1, 'the connection');
  signal.abort(reason);
  t.is(await connecting.catch((error: unknown) => error), reason);
  const aborted = VhostUserTarget.connect(path, { signal: signal.signal });
  t.is(await aborted.catch((error: unknown) => error), reason);
});
