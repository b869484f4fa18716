/** A migration that fails at any step lets all devices run again, in the right order. */
import test, { type ExecutionContext } from 'ava';
import { PeerDmaError, startMigration, startRestore, type MigrationState } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { type Vm, NAMES, barAddress, createVm, slowDown } from './support/vm.ts';

async function vm(t: ExecutionContext, ...options: Parameters<typeof createVm>[1] & object): Promise<Vm> {
  const made = await createVm(new Map(), options.length === 0 ? undefined : options);
  t.teardown(() => made.close());
  return made;
}

/** Records the changes of state of VMs, and lets the n-th of all fail. @returns the changes */
function failAt(failing: number, ...vms: readonly Vm[]): string[] {
  const changes: string[] = [];
  for (const [index, migration] of vms.flatMap(({ migrations }) => migrations).entries()) {
    const setState = migration.setState.bind(migration);
    migration.setState = async (state: MigrationState) => {
      changes.push(`${NAMES[index % NAMES.length]} ${state}`);
      if (changes.length === failing) throw new PeerDmaError('ERR_MIGRATION_STATE', 'refused');
      await setState(state);
    };
  }
  return changes;
}

function states({ migrations }: Vm): MigrationState[] {
  return migrations.map(({ state }) => state);
}

const RUNNING = ['running', 'running', 'running'];

test('returns to RUNNING from a failure at each change of state', async (t) => {
  for (let failing = 1; failing <= 9; failing++) {
    const source = await vm(t);
    const changes = failAt(failing, source);
    const calls = async (): Promise<void> => {
      const from = await startMigration(source);
      try {
        await from.stop();
      } finally {
        t.is(from.phase, 'cancelled');
      }
    };
    const error = await t.throwsAsync<PeerDmaError>(calls(), { instanceOf: PeerDmaError });
    t.is(error.code, 'ERR_MIGRATION_STATE', `change ${failing}`);
    t.regex(error.message, /^the device "(nic|gpu|disk)": refused$/);
    t.deepEqual(states(source), RUNNING);
    // No device runs with P2P before all accept it again.
    const undone = changes.slice(3 * Math.ceil(failing / 3));
    const firstRunning = undone.findIndex((change) => change.endsWith(' running'));
    t.false(undone.slice(firstRunning).some((change) => change.endsWith('running-p2p')));
    t.true(failing < 4 || undone[0]?.endsWith('running-p2p'), undone.join());
  }
});

/** Moves a VM in the order of the guide. */
async function move(source: Vm, target: Vm): Promise<void> {
  await using from = await startMigration(source);
  await using to = await startRestore(target);
  for await (const chunk of from.preCopy()) await to.write(chunk);
  await from.stop();
  for await (const chunk of from.stopCopy()) await to.write(chunk);
  await to.complete();
  await from.complete();
}

/** Changes of state of a move: 9 of the source before its end, 18 of the target, 3 at the end. */
const CHANGES = 30;

/** Counts the resets of the devices. */
function countResets({ devices }: Vm): () => number {
  let count = 0;
  for (const device of Object.values(devices)) {
    const reset = device.reset.bind(device);
    device.reset = async (options) => {
      await reset(options);
      count++;
    };
  }
  return () => count;
}

for (const preCopy of [true, false]) {
  const how = preCopy ? 'with' : 'without';
  test(`a failure at each change of state of a move lets exactly one side run, ${how} PRE_COPY`, async (t) => {
    for (let failing = 1; failing <= CHANGES + 1; failing++) {
      const options = NAMES.map(() => ({ preCopy }));
      const [source, target] = [await vm(t, ...options), await vm(t, ...options)];
      const resets = countResets(target);
      const changes = failAt(failing, source, target);
      const moving = move(source, target);
      if (failing > CHANGES) await moving;
      else await t.throwsAsync(moving, { instanceOf: PeerDmaError, code: 'ERR_MIGRATION_STATE' }, `change ${failing}`);
      t.deepEqual(states(target), RUNNING, `change ${failing}`);
      if (failing <= CHANGES - NAMES.length) {
        t.deepEqual(states(source), RUNNING, `change ${failing}`);
        t.is(resets(), changes.some((change) => change.endsWith('resuming')) ? 3 : 0, 'no copy of the VM runs');
        continue;
      }
      // The last changes are those of `complete` of the source, when the target runs.
      t.is(changes.length, CHANGES, 'the source does not run again');
      t.true(states(source).every((state) => state === 'stop' || state === 'stop-copy'));
      t.is(resets(), 0);
    }
  });
}

test('a device that cannot run again is reported, and the others run', async (t) => {
  const source = await vm(t);
  const { gpu } = source.devices;
  const from = await startMigration(source);
  const migration = source.migrations[1];
  if (migration === undefined) return t.fail();
  migration.setState = async () => {
    throw new PeerDmaError('ERR_MIGRATION_STATE', 'it is in ERROR. Reset it');
  };
  const error = await t.throwsAsync<PeerDmaError>(from.stop(), { instanceOf: PeerDmaError });
  t.is(error.code, 'ERR_ROLLBACK_FAILED');
  t.regex(error.message, /the device "gpu": it is in ERROR. Reset it/);
  await gpu.reset();
  t.deepEqual(states(source), RUNNING);
});

test('closing a migration that is not complete lets the VM run', async (t) => {
  const source = await vm(t);
  slowDown(source, [0, 3, 1]);
  {
    await using from = await startMigration(source);
    await from.stop();
    t.deepEqual(states(source), ['stop-copy', 'stop-copy', 'stop-copy']);
    for await (const _ of from.stopCopy()) break;
    await rejectsCode(t, from.stop(), 'ERR_MIGRATION_STATE');
    await rejectsCode(t, from.remaining(), 'ERR_MIGRATION_STATE');
  }
  t.deepEqual(states(source), RUNNING);
  await using again = await startMigration(source);
  await again.stop();
  for await (const _ of again.stopCopy()) break;
  await rejectsCode(t, again.complete(), 'ERR_MIGRATION_STATE', 'the copy is not complete');
  for await (const _ of again.stopCopy());
  await again.complete();
  await again.close();
  t.deepEqual(states(source), ['stop', 'stop', 'stop']);
});

test('a restore that is not complete resets the devices', async (t) => {
  const target = await vm(t);
  {
    await using to = await startRestore(target);
    t.deepEqual(states(target), ['resuming', 'resuming', 'resuming']);
    await rejectsCode(
      t,
      to.write({ kind: 'device', device: 'tape', bytes: new Uint8Array(1) }),
      'ERR_INVALID_ARGUMENT',
    );
    await rejectsCode(t, to.complete(), 'ERR_MIGRATION_STATE', 'there is no data');
  }
  t.deepEqual(states(target), RUNNING);
});

test('rejects a set of devices that reach each other and cannot be quiesced', async (t) => {
  const source = await vm(t, { p2p: false }, { p2p: false }, {});
  const error = await t.throwsAsync<PeerDmaError>(startMigration(source), { instanceOf: PeerDmaError });
  t.is(error.code, 'ERR_UNSUPPORTED');
  t.regex(error.message, /"nic" and "gpu" have no state RUNNING_P2P, and other devices can write to "nic" by DMA/);
  const one = await vm(t, { p2p: false }, {}, {});
  await using from = await startMigration(one);
  await from.stop();
  t.deepEqual(states(one), ['stop-copy', 'stop-copy', 'stop-copy'], 'one such device stops while the others are quiet');
});

test('rejects such a set when the VM stops, if memory of the devices was mapped since the start', async (t) => {
  const source = await vm(t, { p2p: false }, { p2p: false }, {});
  for (const bar of source.bars) await bar.unmapFromGuest();
  const from = await startMigration(source);
  await source.bars[1]?.mapToGuest(barAddress(1));
  await rejectsCode(t, from.stop(), 'ERR_UNSUPPORTED');
  t.deepEqual(states(source), RUNNING);
});

test('reports the errors of all devices', async (t) => {
  const source = await vm(t);
  const from = await startMigration(source);
  for (const migration of source.migrations.slice(0, 2)) {
    const setState = migration.setState.bind(migration);
    migration.setState = async (state) => {
      if (state === 'stop-copy') throw new PeerDmaError('ERR_MIGRATION_STATE', 'refused');
      await setState(state);
    };
  }
  const error = await rejectsCode(t, from.stop(), 'ERR_MIGRATION_STATE');
  t.is(error.message, 'the device "nic": refused; the device "gpu": refused');
});

test('rejects a device that cannot migrate, does not run, or does not log its writes', async (t) => {
  const source = await vm(t, {}, { dmaLog: false }, {});
  const { memory, devices } = source;
  const unlogged = await t.throwsAsync<PeerDmaError>(startMigration(source), { instanceOf: PeerDmaError });
  t.is(unlogged.code, 'ERR_UNSUPPORTED');
  t.regex(unlogged.message, /"gpu" cannot migrate: it does not log its DMA writes/);
  const without = Object.assign(Object.create(devices.nic) as typeof devices.nic, {});
  Object.defineProperty(without, 'migration', { value: undefined });
  await rejectsCode(t, startMigration({ memory, devices: { nic: without } }), 'ERR_UNSUPPORTED');
  await devices.disk.migration?.setState('stop');
  await rejectsCode(t, startMigration({ memory, devices: { disk: devices.disk } }), 'ERR_MIGRATION_STATE');
});
