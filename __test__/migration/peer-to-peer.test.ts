/** A VM of three devices that write into each other migrates at any moment. No byte is lost or written twice. */
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { startMigration, startRestore } from '../../ts/index.ts';
import { seedOf } from '../support/seed.ts';
import {
  type Arrivals,
  type Message,
  NAMES,
  type Vm,
  compare,
  createVm,
  drain,
  queue,
  slowDown,
  turns,
} from './support/vm.ts';

/** Moves a VM from a source that runs to a destination, in an order of its own. */
type Move = (source: Vm, target: Vm) => Promise<void>;

interface Program {
  /** Sender and target of each message. */
  readonly writes: readonly (readonly [from: number, to: number])[];
  /** Turns of the event loop before the migration starts, and between its steps. */
  readonly pauses: readonly number[];
  /** The device that cannot be quiesced, if there is one. */
  readonly loud: number;
  readonly preCopy: readonly boolean[];
  /** Turns that a change of state takes, for each device. */
  readonly delays: readonly number[];
}

const PROGRAMS: fc.Arbitrary<Program> = fc.record({
  writes: fc.array(fc.tuple(fc.nat(NAMES.length - 1), fc.nat(NAMES.length)), { minLength: 60, maxLength: 200 }),
  pauses: fc.array(fc.nat(8), { minLength: 4, maxLength: 4 }),
  loud: fc.integer({ min: -3, max: NAMES.length - 1 }),
  preCopy: fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
  delays: fc.array(fc.nat(4), { minLength: 3, maxLength: 3 }),
});

function messagesOf({ writes }: Program): Message[] {
  const counts = new Map<string, number>();
  return writes.map(([from, to]) => {
    const sequence = counts.get(`${from} ${to}`) ?? 0;
    counts.set(`${from} ${to}`, sequence + 1);
    return { from, to, sequence };
  });
}

/** Runs a program, with a migration at its moment. */
async function run(program: Program, move: Move): Promise<{ lost: number; twice: number; left: number }> {
  const { loud, preCopy, pauses } = program;
  const arrivals: Arrivals = new Map();
  const options = NAMES.map((_, index) => ({ p2p: index !== loud, preCopy: preCopy[index] ?? true }));
  const source = await createVm(arrivals, options, true);
  const target = await createVm(arrivals, options);
  try {
    const messages = messagesOf(program);
    for (const vm of [source, target]) slowDown(vm, program.delays);
    queue(source, messages);
    await turns(pauses[0] ?? 0);
    await move(source, target);
    const left = Object.values(target.devices).reduce((sum, { queuedDmaWrites }) => sum + queuedDmaWrites, 0);
    await drain(target);
    return { ...compare(target, messages, arrivals), left };
  } finally {
    await source.close();
    await target.close();
  }
}

/** The order of this package, with pauses between the steps. */
function inOrder({ pauses }: Program): Move {
  return async (source, target) => {
    await using from = await startMigration(source);
    await using to = await startRestore(target);
    for (const pause of pauses.slice(1)) {
      for await (const chunk of from.preCopy()) await to.write(chunk);
      await turns(pause);
    }
    await from.stop();
    for await (const chunk of from.stopCopy()) await to.write(chunk);
    await from.complete();
    await to.complete();
  };
}

test('no byte is lost or written twice, whenever the VM is moved', async (t) => {
  let left = 0;
  await fc.assert(
    fc.asyncProperty(PROGRAMS, async (program) => {
      const result = await run(program, inOrder(program));
      left += result.left;
      t.deepEqual({ lost: result.lost, twice: result.twice }, { lost: 0, twice: 0 });
    }),
    { numRuns: 60, seed: seedOf(t), endOnFailure: true },
  );
  t.true(left > 500, `writes were queued in the moved devices: ${left}`);
});

/** Runs programs in a wrong order, and returns the messages that were lost and written twice. */
async function runWrong(t: ExecutionContext, move: Move): Promise<{ lost: number; twice: number }> {
  const total = { lost: 0, twice: 0 };
  for (const program of fc.sample(PROGRAMS, { numRuns: 30, seed: seedOf(t) })) {
    const { lost, twice } = await run({ ...program, loud: -1 }, move);
    total.lost += lost;
    total.twice += twice;
  }
  return total;
}

/** Saves devices one by one, and restores them. */
async function saveAll(source: Vm, target: Vm): Promise<void> {
  for (const [index, { migration }] of Object.values(source.devices).entries()) {
    await migration?.setState('stop-copy');
    const into = target.migrations[index];
    await into?.setState('resuming');
    if (migration !== undefined) await into?.load(migration.save());
    await into?.setState('stop');
  }
  target.memory.write(0n, source.memory.read(0n, 1 << 20));
}

async function stopAll({ migrations }: Vm): Promise<void> {
  for (const migration of migrations) await migration.setState('running-p2p');
  for (const migration of migrations) await migration.setState('stop');
}

async function resumeAll({ migrations }: Vm): Promise<void> {
  for (const migration of migrations) await migration.setState('running-p2p');
  for (const migration of migrations) await migration.setState('running');
}

test('the states in the right order, by hand, lose nothing', async (t) => {
  const move: Move = async (source, target) => {
    await stopAll(source);
    await saveAll(source, target);
    await resumeAll(target);
  };
  t.deepEqual(await runWrong(t, move), { lost: 0, twice: 0 });
});

test('devices that stop one after another lose bytes', async (t) => {
  const move: Move = async (source, target) => {
    await saveAll(source, target);
    await resumeAll(target);
  };
  t.true((await runWrong(t, move)).lost > 0);
});

test('devices that run one after another at the destination lose bytes', async (t) => {
  const move: Move = async (source, target) => {
    await stopAll(source);
    await saveAll(source, target);
    for (const migration of target.migrations) {
      await migration.setState('running');
      await turns(2);
    }
  };
  t.true((await runWrong(t, move)).lost > 0);
});

test('a source that runs again beside its destination writes bytes twice', async (t) => {
  const move: Move = async (source, target) => {
    await stopAll(source);
    await saveAll(source, target);
    await resumeAll(target);
    await resumeAll(source);
    await drain(source);
  };
  t.true((await runWrong(t, move)).twice > 0);
});

test('RAM that is copied while devices write to it, without their log, is out of date', async (t) => {
  const move: Move = async (source, target) => {
    target.memory.write(0n, source.memory.read(0n, 1 << 20));
    await turns(10);
    await stopAll(source);
    for (const [index, migration] of source.migrations.entries()) {
      await migration.setState('stop-copy');
      await target.migrations[index]?.setState('resuming');
      await target.migrations[index]?.load(migration.save());
    }
    await resumeAll(target);
  };
  t.true((await runWrong(t, move)).lost > 0);
});
