/** The addresses that BARs decode, and callbacks for their changes. */
import test from 'ava';
import type { AssignedDevice } from '../../ts/index.ts';
import { throwsCode } from '../support/errors.ts';
import { COMMAND, MEMORY, barRegister, capability, command, writeBar32, writeBar64 } from './support/guest.ts';
import { Fixture, MiB } from './support/fixture.ts';

const LOW = 0xe000_0000n;
const HIGH = 0x40_0000_0000n;

function decoded(device: AssignedDevice): string[] {
  return device.decodedBars.map(String);
}

test('decodedBars has the whole BARs that decode, by their numbers', async (t) => {
  const fixture = await Fixture.create(t);
  const device = await fixture.assign();
  t.deepEqual(device.decodedBars, []);
  await writeBar64(device, 2, HIGH);
  await writeBar32(device, 0, LOW);
  t.deepEqual(device.decodedBars, [], 'memory decode is off');
  await command(device, MEMORY);
  t.deepEqual(decoded(device), ['0xe0000000..0xe0010000', '0x4000000000..0x4000100000']);
  await writeBar32(device, 4, LOW + MiB);
  t.is(decoded(device)[2], '0xe0100000..0xe0100100', 'also one that is trapped');
  t.is(device.memory, fixture.memory);
  await device.close();
  t.deepEqual(device.decodedBars, []);
});

test('calls every callback after each change, and only then', async (t) => {
  const fixture = await Fixture.create(t);
  const device = await fixture.assign();
  const seen: string[][] = [];
  let others = 0;
  const watch = device.watchBars(() => seen.push(decoded(device)));
  const count = (): number => others++;
  const counts = [device.watchBars(count), device.watchBars(count)];
  await writeBar32(device, 4, LOW);
  t.deepEqual(seen, []);
  await command(device, MEMORY);
  await command(device, MEMORY);
  await writeBar32(device, 4, LOW);
  await writeBar32(device, 4, LOW + MiB);
  await device.configWrite(capability(device, 0x10) + 8, 2, 0x8000);
  t.deepEqual(seen.splice(0), [['0xe0000000..0xe0000100'], ['0xe0100000..0xe0100100'], [], ['0xe0100000..0xe0100100']]);
  t.is(others, 8);
  counts[0]?.remove();
  counts[0]?.remove();
  await device.reset();
  t.deepEqual(seen.splice(0), [[]]);
  t.is(others, 9);
  watch.remove();
  await writeBar32(device, 4, LOW);
  await command(device, MEMORY);
  await device.close();
  t.deepEqual(seen, []);
  t.is(others, 11);
});

test('calls it again when a change is undone after a failure', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.spy(fixture.simulated());
  const assigned = await fixture.assign(device);
  await writeBar32(assigned, 4, LOW);
  await command(assigned, MEMORY);
  const seen: string[][] = [];
  assigned.watchBars(() => seen.push(decoded(assigned)));
  let writes = 0;
  device.failWith = (what) => (what.startsWith('config 0x4 ') && writes++ === 0 ? new Error('rejected') : undefined);
  await t.throwsAsync(assigned.configWrite(COMMAND, 2, 0), { message: 'rejected' });
  t.deepEqual(seen, [[], ['0xe0000000..0xe0000100']]);
  t.is(assigned.configRead(barRegister(4), 4), Number(LOW));
});

test('an error of a callback is an uncaught exception, and changes nothing', async (t) => {
  const fixture = await Fixture.create(t);
  const device = await fixture.assign();
  const uncaught: unknown[] = [];
  const { queueMicrotask } = globalThis;
  // ava fails a file with an uncaught exception, so the microtask that throws it is caught here.
  globalThis.queueMicrotask = (task) =>
    queueMicrotask(() => {
      try {
        task();
      } catch (error) {
        uncaught.push(error);
      }
    });
  t.teardown(() => {
    globalThis.queueMicrotask = queueMicrotask;
  });
  const error = new Error('mine');
  let others = 0;
  const watch = device.watchBars(() => {
    throw error;
  });
  device.watchBars(() => others++);
  await writeBar32(device, 4, LOW);
  await command(device, MEMORY);
  watch.remove();
  t.deepEqual(uncaught, [error]);
  t.is(others, 1);
  t.deepEqual(decoded(device), ['0xe0000000..0xe0000100']);
});

test('rejects a callback that is not a function', async (t) => {
  const fixture = await Fixture.create(t);
  const device = await fixture.assign();
  const { message } = throwsCode(t, () => device.watchBars(5 as never), 'ERR_INVALID_ARGUMENT');
  t.is(message, 'the callback for changes must be a function, not the number 5');
});
