/**
 * The event loop runs while much memory is allocated, faulted in, pinned, unmapped and freed. The longest gap between
 * two turns is printed, not asserted: in an emulated guest it depends on the load of the host. The first test prints
 * the gap of the machine itself. `npm run test:guest -- --memory 6G event-loop` allocates 4 GiB.
 */
import test, { type ExecutionContext } from 'ava';
import { pbkdf2 } from 'node:crypto';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { totalmem } from 'node:os';
import { setImmediate as turn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { AssignedDevice, GuestMemory, MemoryFile, type VfioDevice } from '../../ts/index.ts';
import { newManager } from './support/backend.ts';
import { testWith } from './support/devices.ts';
import { pinnedAtRest } from './support/pins.ts';
import { repetitions } from './support/repetitions.ts';
import { RAM_START } from './support/rig.ts';

const MIB = 1n << 20n;
/** Above the memory reserved below 4 GiB. */
const START = 1n << 32n;
/** 4 GiB if the machine has room for it, otherwise an amount that fits into a guest of 2 GiB. */
const LENGTH = (totalmem() > 5 * 2 ** 30 ? 4096n : BigInt(repetitions(640))) * MIB;
const NAME = 'event-loop-ram';
const EXPRESS = 0x10;
/** Initiate Function Level Reset, in the upper byte of Device Control. */
const INITIATE = 0x80;

/** Runs `work` and prints the longest gap of the event loop meanwhile. */
async function watched<T>(t: ExecutionContext, what: string, act: () => Promise<T>): Promise<T> {
  let [last, longest, turns, done] = [performance.now(), 0, 0, false];
  const watching = (async () => {
    while (!done) {
      await turn();
      const now = performance.now();
      longest = Math.max(longest, now - last);
      [last, turns] = [now, turns + 1];
    }
  })();
  try {
    return await act();
  } finally {
    done = true;
    await watching;
    t.log(`${what}: longest gap ${longest.toFixed(1)} ms, ${turns} turns`);
  }
}

/** Keeps a worker thread busy. */
async function compute(rounds: number): Promise<void> {
  await promisify(pbkdf2)('', '', rounds, 32, 'sha256');
}

/** Mappings and descriptors of the file in this process. */
function left(): number[] {
  const mapped = readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes(NAME));
  const open = readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes(NAME);
    } catch {
      return false; // the descriptor of the folder itself
    }
  });
  return [mapped.length, open.length];
}

test.serial('prints the longest gap of the machine itself, while a worker thread computes', async (t) => {
  await compute(20_000);
  await watched(t, 'a worker thread computes', () => compute(50_000));
  t.pass();
});

for (const kind of ['a file', 'private memory'] as const) {
  testWith(
    { any: 1 },
    `the event loop runs while ${kind} of ${LENGTH / MIB} MiB is allocated and freed`,
    async (t, { any: [bdf = ''] }) => {
      // First with little memory: code that runs for the first time takes much longer in an emulated processor.
      await allocateAndFree(t, kind, bdf, 2n * MIB);
      await allocateAndFree(t, kind, bdf, LENGTH);
    },
  );
}

async function allocateAndFree(t: ExecutionContext, kind: string, bdf: string, length: bigint): Promise<void> {
  const watch = <T>(what: string, act: () => Promise<T>): Promise<T> => watched(t, `${length / MIB} MiB, ${what}`, act);
  const memory = await watch('make guest memory', () => {
    if (kind === 'private memory') return GuestMemory.create({ ram: [{ start: START, length, private: true }] });
    const file = MemoryFile.create(length, { name: NAME });
    const made = GuestMemory.create({ ram: [{ start: START, length, file }] });
    file.close();
    return made;
  });
  const manager = newManager(memory);
  t.teardown(() => manager.close());
  const before = await pinnedAtRest();
  const device = await watch('open a device, fault in and pin', () => manager.open(bdf));
  t.true((await pinnedAtRest()) - before >= Number(length / 4096n));
  await watch('close the device, unpin', () => device.close());
  t.is(await pinnedAtRest(), before);
  await watch('close guest memory', () => memory.close());
  t.deepEqual(left(), [0, 0], 'all of it is freed when the promise settles');
}

testWith({ nvme: 1 }, 'the event loop runs while a guest resets a function', async (t, { nvme: [bdf = ''] }) => {
  const memory = await GuestMemory.create({ ram: [{ start: RAM_START, length: MIB }] });
  const manager = newManager(memory);
  t.teardown(async () => {
    await manager.close();
    await memory.close();
  });
  const device: VfioDevice = await watched(t, 'open', () => manager.open(bdf));
  const assigned = await watched(t, 'assign', () => AssignedDevice.create({ device, memory }));
  let register = assigned.configRead(0x34, 1);
  while (assigned.configRead(register, 1) !== EXPRESS) register = assigned.configRead(register + 1, 1);
  const id = assigned.configRead(0, 4);
  await assigned.configWrite(4, 2, 2);
  await watched(t, 'function-level reset', () => assigned.configWrite(register + 9, 1, INITIATE));
  t.is(assigned.configRead(0, 4), id);
  await watched(t, 'reset', () => assigned.reset());
  await watched(t, 'close', () => assigned.close());
});
