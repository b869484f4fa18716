/** The ends of a migration, called at any moment: either all of the VM runs, or none of it. */
import test, { type ExecutionContext } from 'ava';
import {
  type MigratingMachine,
  type MigrationChunk,
  PeerDmaError,
  startMigration,
  startRestore,
} from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { Log } from './support/log.ts';
import { type Vm, barAddress, createVm, slowDown, turns } from './support/vm.ts';

const RUNNING = ['running', 'running', 'running'];
const STOPPED = ['stop', 'stop', 'stop'];

async function vm(t: ExecutionContext): Promise<Vm> {
  const made = await createVm(new Map(), undefined, true);
  t.teardown(() => made.close());
  return made;
}

function states({ migrations }: Vm): string[] {
  return migrations.map(({ state }) => state);
}

test('a source that is closed while it stops lets the VM run', async (t) => {
  const phases = new Set<string>();
  for (let wait = 0; wait < 12; wait++) {
    const source = await vm(t);
    slowDown(source, [1, 3, 2]);
    const machine = new Log();
    const from = await startMigration({ ...source, machine: machine as MigratingMachine });
    const stopping = from.stop();
    await turns(wait);
    phases.add(from.phase);
    await from.close();
    await stopping;
    t.is(from.phase, 'cancelled');
    t.deepEqual(states(source), RUNNING);
    t.is(machine.state, 'running');
  }
  t.deepEqual([...phases], ['stopping', 'stopped']);
});

test('a source that is closed while stopCopy begins lets the VM run', async (t) => {
  const source = await vm(t);
  const from = await startMigration(source);
  await from.stop();
  slowDown(source, [2, 2, 2]);
  const reading = (async () => {
    for await (const _ of from.stopCopy());
  })();
  const closing = from.close();
  await t.throwsAsync(reading, { instanceOf: PeerDmaError, code: 'ERR_MIGRATION_STATE' });
  await closing;
  t.deepEqual(states(source), RUNNING);
});

test('a machine that does not resume is resumed by another close', async (t) => {
  const source = await vm(t);
  const machine = new Log();
  const from = await startMigration({ ...source, machine: machine as MigratingMachine });
  await from.stop();
  const { resume } = machine;
  machine.resume = () => {
    throw new Error('not yet');
  };
  await t.throwsAsync(from.close(), { message: 'not yet' });
  t.deepEqual(states(source), RUNNING);
  machine.resume = resume;
  await from.close();
  t.is(machine.state, 'running');
});

test('complete requires the whole copy, and its failure leaves the VM stopped', async (t) => {
  const source = await vm(t);
  const from = await startMigration(source);
  await from.stop();
  await rejectsCode(t, from.complete(), 'ERR_MIGRATION_STATE');
  for await (const _ of from.stopCopy());
  const [, second] = source.migrations;
  if (second === undefined) return t.fail();
  const setState = second.setState.bind(second);
  second.setState = () => Promise.reject(new PeerDmaError('ERR_MIGRATION_STATE', 'refused'));
  await rejectsCode(t, from.complete(), 'ERR_MIGRATION_STATE');
  t.is(from.phase, 'completed');
  second.setState = setState;
  await from.close();
  t.deepEqual(states(source), ['stop', 'stop-copy', 'stop'], 'it may run at the destination');
  await from.complete();
  t.deepEqual(states(source), STOPPED);
});

/** The chunks of a VM that was stopped. */
async function copyOf(t: ExecutionContext): Promise<MigrationChunk[]> {
  const from = await startMigration(await vm(t));
  await from.stop();
  const chunks: MigrationChunk[] = [];
  for await (const chunk of from.stopCopy()) chunks.push(chunk);
  await from.close();
  return chunks;
}

test('writes that are not awaited arrive in their order, before complete', async (t) => {
  const target = await vm(t);
  const to = await startRestore(target);
  for (const [index, migration] of target.migrations.entries()) {
    const load = migration.load.bind(migration);
    let waits = 5 + index;
    migration.load = async (chunks) => {
      await turns(waits--);
      await load(chunks);
    };
  }
  const writes = (await copyOf(t)).map((chunk) => to.write(chunk));
  await to.complete();
  await Promise.all(writes);
  t.deepEqual(states(target), RUNNING);
});

test('a restore that is closed while it completes keeps its devices and their data', async (t) => {
  const target = await vm(t);
  const to = await startRestore(target);
  for (const chunk of await copyOf(t)) await to.write(chunk);
  slowDown(target, [2, 1, 3]);
  let resets = 0;
  for (const device of Object.values(target.devices)) device.reset = async () => void resets++;
  const completing = to.complete();
  await turns(1);
  await to.close();
  await completing;
  t.is(resets, 0);
  t.deepEqual(states(target), RUNNING);
});

test('devices that do not all run at the destination are stopped again, and reset by close', async (t) => {
  for (const failing of ['running-p2p', 'running']) {
    const target = await vm(t);
    const to = await startRestore(target);
    for (const chunk of await copyOf(t)) await to.write(chunk);
    const [, , last] = target.migrations;
    if (last === undefined) return t.fail();
    const setState = last.setState.bind(last);
    last.setState = async (state) => {
      if (state === failing) {
        last.setState = setState;
        throw new PeerDmaError('ERR_MIGRATION_STATE', 'refused');
      }
      await setState(state);
    };
    const error = await rejectsCode(t, to.complete(), 'ERR_MIGRATION_STATE');
    t.is(error.message, 'the device "disk": refused');
    t.deepEqual(states(target), STOPPED, failing);
    await to.close();
    t.deepEqual(states(target), RUNNING);
    await rejectsCode(t, to.complete(), 'ERR_MIGRATION_STATE', 'it is closed');
  }
});

test('a chunk does not reach device memory, nor address 0 by default', async (t) => {
  const target = await vm(t);
  await using to = await startRestore(target);
  const bytes = Uint8Array.of(1);
  const write = (chunk: unknown): Promise<void> => to.write(chunk as MigrationChunk);
  await rejectsCode(t, write({ kind: 'ram', bytes }), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, write({ kind: 'nonsense', gpa: 0n, device: 'nic', bytes }), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, write({ device: 'nic', bytes }), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, write({ kind: 'ram', gpa: barAddress(0), bytes }), 'ERR_NOT_MAPPED');
  await rejectsCode(t, write({ kind: 'ram', gpa: 0xfffffn, bytes: new Uint8Array(2) }), 'ERR_NOT_MAPPED');
  t.deepEqual([...target.memory.read(barAddress(0), 1), ...target.memory.read(0n, 1)], [0, 0]);
  await write({ kind: 'ram', gpa: 0xfffffn, bytes });
  t.deepEqual([...target.memory.read(0xfffffn, 1)], [1]);
});
