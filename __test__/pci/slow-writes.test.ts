/**
 * Slow config writes (resets, power state changes) use a worker thread if the device supports it. All others do not.
 */
import test from 'ava';
import { setImmediate as turn } from 'node:timers/promises';
import type { DeviceRegion, PhysicalFunction } from '../../ts/index.ts';
import { MEMORY, capability, command, writeBar64 } from './support/guest.ts';
import { Fixture } from './support/fixture.ts';

const HIGH = 0x40_0000_0000n;
const POWER = 0x01;
const EXPRESS = 0x10;
/** Initiate Function Level Reset, in the upper byte of Device Control. */
const INITIATE = 0x80;

interface ThreadedFunction {
  readonly func: PhysicalFunction;
  /** The kind and the offset of each write. */
  readonly log: string[];
  /** Completes the pending write of the thread. */
  release(): void;
  fail(error: Error): void;
}

/** Wraps a function whose config space has a worker thread. A write ends when it is released. */
function wrapWithThread(device: PhysicalFunction): ThreadedFunction {
  const log: string[] = [];
  let release: () => void = () => {};
  let fail: (error: Error) => void = () => {};
  const { config } = device;
  const note = (how: string, offset: bigint): void => void log.push(`${how} 0x${offset.toString(16)}`);
  const threaded: DeviceRegion = new Proxy(config, {
    get: (target, name) => {
      if (name === 'write') {
        return (offset: bigint, bytes: Uint8Array): void => {
          note('write', offset);
          target.write(offset, bytes);
        };
      }
      if (name === 'writeAsync') {
        return async (offset: bigint, bytes: Uint8Array): Promise<void> => {
          note('thread', offset);
          await new Promise<void>((done, failed) => ((release = done), (fail = failed)));
          target.write(offset, bytes);
        };
      }
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
  const func = new Proxy(device, {
    get: (target, name) => {
      if (name === 'config') return threaded;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
  return { func, log, release: () => release(), fail: (error) => fail(error) };
}

/** Releases every write of the thread until a promise is settled. */
async function releaseUntil<T>(release: () => void, done: Promise<T>): Promise<T> {
  let ended = false;
  void done.finally(() => (ended = true)).catch(() => {});
  while (!ended) {
    release();
    await turn();
  }
  return await done;
}

test('writes a function-level reset on a worker thread; config space reads as all ones until it is done', async (t) => {
  const fixture = await Fixture.create(t);
  const { func, log, release } = wrapWithThread(fixture.simulated());
  const assigned = await releaseUntil(release, fixture.assign(func));
  const register = capability(assigned, EXPRESS) + 9;
  await writeBar64(assigned, 2, HIGH);
  await command(assigned, MEMORY);
  const id = assigned.configRead(0, 4);
  log.length = 0;

  const resetting = assigned.configWrite(register, 1, INITIATE);
  while (log.length === 0) await turn();
  t.deepEqual(log, [`thread 0x${register.toString(16)}`]);
  t.is(assigned.configRead(0, 4), 0xffffffff);
  t.is(assigned.configRead(4, 2), 0xffff);
  t.deepEqual(fixture.mappedBars(), [], 'its BARs are out of reach before');
  const next = assigned.configWrite(0x3c, 1, 7);
  await turn();
  release();
  await resetting;
  t.is(assigned.configRead(0, 4), id);
  await next;
  t.is(assigned.configRead(0x3c, 1), 7, 'a write that came meanwhile follows it');
});

test('keeps config space readable after a failed reset on the worker thread', async (t) => {
  const fixture = await Fixture.create(t);
  const { func, log, release, fail } = wrapWithThread(fixture.simulated());
  const assigned = await releaseUntil(release, fixture.assign(func));
  const id = assigned.configRead(0, 4);
  log.length = 0;
  const resetting = assigned.configWrite(capability(assigned, EXPRESS) + 9, 1, INITIATE);
  while (log.length === 0) await turn();
  t.is(assigned.configRead(0, 4), 0xffffffff);
  fail(new Error('the device is gone'));
  await t.throwsAsync(releaseUntil(release, resetting), { message: 'the device is gone' });
  t.is(assigned.configRead(0, 4), id);
});

test('reads all ones from config space during a hardware reset, whatever its result', async (t) => {
  const fixture = await Fixture.create(t);
  for (const failure of [undefined, new Error('the device is gone')]) {
    const device = fixture.simulated();
    let end: (() => void) | undefined;
    const func: PhysicalFunction = new Proxy(device, {
      get: (target, name) => {
        if (name === 'reset') {
          return async (): Promise<void> => {
            await new Promise<void>((done) => (end = done));
            if (failure !== undefined) throw failure;
          };
        }
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
    const assigned = await fixture.assign(func);
    const id = assigned.configRead(0, 4);
    const resetting = assigned.reset();
    while (end === undefined) await turn();
    t.is(assigned.configRead(0, 4), 0xffffffff);
    end();
    if (failure === undefined) await resetting;
    else await t.throwsAsync(resetting, { message: failure.message });
    t.is(assigned.configRead(0, 4), id);
  }
});

test('writes the power state on a worker thread, and all other registers at once', async (t) => {
  const fixture = await Fixture.create(t);
  const { func, log, release } = wrapWithThread(fixture.simulated());
  const assigned = await releaseUntil(release, fixture.assign(func));
  const power = capability(assigned, POWER) + 4;
  log.length = 0;
  await releaseUntil(release, assigned.configWrite(power, 2, 3));
  await releaseUntil(release, assigned.configWrite(power, 2, 0));
  const hex = power.toString(16);
  t.deepEqual(log, [`thread 0x${hex}`, `thread 0x${hex}`]);
  log.length = 0;
  await command(assigned, MEMORY);
  t.deepEqual(log, ['write 0x4']);
});
