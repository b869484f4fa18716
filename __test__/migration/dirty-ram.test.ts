/**
 * The RAM that a migration copies: from the logs of devices, of an IOMMU and of processors as one set.
 *
 * The IOMMU and the machine are fakes: __test__/vfio/kvm/migration.test.ts has processors of KVM.
 */
import test, { type ExecutionContext } from 'ava';
import {
  AddressRange,
  GuestMemory,
  startMigration,
  type MigrationChunk,
  type MigratingMachine,
} from '../../ts/index.ts';
import { SimulatedDevice } from '../../ts/testing.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { PAGE, at, pages } from '../support/pages.ts';
import { Log } from './support/log.ts';
import { type Vm, createVm } from './support/vm.ts';

async function vm(t: ExecutionContext, options: Parameters<typeof createVm>[1]): Promise<Vm> {
  const made = await createVm(new Map(), options, true);
  t.teardown(() => made.close());
  return made;
}

/** The RAM of a round, as ranges. */
async function ramOf(chunks: AsyncIterable<MigrationChunk>): Promise<string[]> {
  const found: string[] = [];
  for await (const chunk of chunks) {
    if (chunk.kind === 'ram') found.push(String(AddressRange.of(chunk.gpa, BigInt(chunk.bytes.length))));
  }
  return found;
}

test('joins the writes of devices, the IOMMU, processors and the caller', async (t) => {
  const source = await vm(t, [{}, { dmaLog: false }, {}]);
  const [iommu, machine] = [new Log(), new Log()];
  await using from = await startMigration({ ...source, iommu, machine: machine as MigratingMachine });
  t.deepEqual(await from.remaining().then(({ ram }) => ram), 1n << 20n);
  t.deepEqual(await ramOf(from.preCopy()), [String(AddressRange.of(0n, 1n << 20n))], 'all RAM first');
  t.deepEqual(await ramOf(from.preCopy()), []);

  source.devices.nic.dmaWrite(at(5) + 100n, Uint8Array.of(1));
  source.devices.disk.dmaWrite(at(6) - 1n, Uint8Array.of(1, 2));
  iommu.write(7, 200);
  machine.write(9);
  from.markDirty(pages(11, 2));
  t.is((await from.remaining()).ram, 7n * PAGE);
  const expected = [pages(5, 3), pages(9, 1), pages(11, 2), pages(200, 1)].map(String);
  t.deepEqual(await ramOf(from.preCopy()), expected);
  throwsCode(t, () => from.markDirty(AddressRange.of(1n, PAGE)), 'ERR_UNALIGNED');

  machine.write(3); // the last writes before the pause
  await from.stop();
  t.deepEqual(await ramOf(from.stopCopy()), [String(pages(3, 1))]);
  t.deepEqual(machine.calls, ['start', 'pause', 'stop']);
  await from.close();
  t.deepEqual(machine.calls, ['start', 'pause', 'stop', 'resume']);
  t.deepEqual(iommu.calls, ['start', 'stop']);
});

test('the rest of an interrupted round follows in the next one', async (t) => {
  const source = await vm(t, [{}, {}, {}]);
  await using from = await startMigration(source);
  for await (const chunk of from.preCopy()) {
    t.is(chunk.kind, 'ram');
    break; // all RAM is one chunk
  }
  source.devices.nic.dmaWrite(at(1), Uint8Array.of(1));
  source.devices.nic.dmaWrite(at(3), Uint8Array.of(1));
  for await (const _ of from.preCopy()) break;
  t.deepEqual(await ramOf(from.preCopy()), [String(pages(3, 1))]);
});

test('copies RAM that is added or replaced during the migration', async (t) => {
  const source = await vm(t, [{}, {}, {}]);
  await using from = await startMigration(source);
  await ramOf(from.preCopy());
  const region = await source.memory.regions.addRegion({ name: 'more', range: pages(4096, 4), kind: 'ram' });
  await region.addMapping({ backing: 'private' });
  await region.mapToGuest();
  t.deepEqual(await ramOf(from.preCopy()), [String(pages(4096, 4))]);
  source.devices.nic.dmaWrite(at(4097), Uint8Array.of(1));
  const again = [pages(0, 256), pages(4096, 4)].map(String);
  t.deepEqual(await ramOf(from.preCopy()), again.slice(0, 1).concat(String(pages(4097, 1))), 'the log was restarted');
  t.deepEqual(await ramOf(from.preCopy()), [], 'the new RAM is in the log');
  await from.stop();
  await rejectsCode(t, from.remaining(), 'ERR_MIGRATION_STATE');
});

test('processors that do not run are neither paused nor resumed', async (t) => {
  const source = await vm(t, [{}, {}, {}]);
  const machine = new Log();
  machine.state = 'stopped';
  const from = await startMigration({ ...source, machine: machine as MigratingMachine });
  await from.stop();
  await from.close();
  t.deepEqual(machine.calls, ['start', 'stop']);
});

test('the processors continue after the devices if a device does not stop', async (t) => {
  const source = await vm(t, [{}, {}, {}]);
  const calls: string[] = [];
  const from = await startMigration({ ...source, machine: new Log(calls) as MigratingMachine });
  for (const migration of source.migrations) {
    const setState = migration.setState.bind(migration);
    migration.setState = async (state) => {
      calls.push(state);
      if (state === 'stop-copy' && migration === source.migrations[2]) throw new Error('refused');
      await setState(state);
    };
  }
  await t.throwsAsync(from.stop(), { message: 'refused' });
  const order = calls.filter((call, index) => call !== calls[index - 1]);
  t.deepEqual(order, ['start', 'pause', 'pre-copy-p2p', 'stop-copy', 'running-p2p', 'running', 'resume', 'stop']);
});

test('a device logs blocks of RAM that are plugged later, and no log is started without RAM', async (t) => {
  const memory = await GuestMemory.create({ ram: [] });
  const device = new SimulatedDevice({ bdf: '0000:00:01.0', migration: {} });
  t.teardown(async () => {
    await memory.close();
    await device.close();
  });
  const log = device.migration?.dmaLog;
  if (log === undefined) return t.fail();
  const started: string[][] = [];
  const start = log.start.bind(log);
  log.start = (ranges, pageSize) => {
    started.push(ranges.map(String));
    return start(ranges, pageSize);
  };
  await using from = await startMigration({ memory, devices: { device } });
  t.deepEqual(started, []);
  const ram = await memory.addPluggableRam({ start: 0n, length: 16n << 20n, blockSize: 2n << 20n });
  const range = String(AddressRange.of(0n, 16n << 20n));
  for (const block of [0n, 2n, 7n]) await ram.plug([AddressRange.of(block << 21n, 2n << 20n)]);
  t.is((await from.remaining()).ram, 6n << 20n);
  await ramOf(from.preCopy());
  await ramOf(from.preCopy());
  await ram.plug([AddressRange.of(2n << 20n, 2n << 20n)]);
  t.is((await ramOf(from.preCopy())).length, 2);
  t.deepEqual(await ramOf(from.preCopy()), []);
  t.deepEqual(started, [[range]]);
});

test('leaves out RAM that is unmapped during a round', async (t) => {
  const source = await vm(t, [{}, {}, {}]);
  const region = await source.memory.regions.addRegion({ name: 'more', range: pages(4096, 4), kind: 'ram' });
  await region.addMapping({ backing: 'private' });
  await region.mapToGuest();
  await using from = await startMigration(source);
  const found: bigint[] = [];
  for await (const chunk of from.preCopy()) {
    if (chunk.kind === 'ram') found.push(chunk.gpa);
    if (found.length === 1) await region.unmapFromGuest();
  }
  t.deepEqual(found, [0n]);
  await region.mapToGuest();
  t.true((await ramOf(from.preCopy())).includes(String(pages(4096, 4))), 'it is new RAM');
});

test('rejects stop, remaining and another round during a round, and loses no page', async (t) => {
  const source = await vm(t, [{}, {}, {}]);
  await using from = await startMigration(source);
  await ramOf(from.preCopy());
  for (const page of [1, 3, 5]) source.devices.nic.dmaWrite(at(page), Uint8Array.of(1));
  const round = from.preCopy();
  t.is((await round.next()).done, false);
  await rejectsCode(t, from.remaining(), 'ERR_MIGRATION_STATE');
  await rejectsCode(t, from.preCopy().next(), 'ERR_MIGRATION_STATE');
  await rejectsCode(t, from.stop(), 'ERR_MIGRATION_STATE');
  t.is(from.phase, 'pre-copy');
  await round.return();
  t.is((await from.remaining()).ram, 2n * PAGE);
  await from.stop();
  const rest = from.stopCopy();
  await rest.next();
  await rejectsCode(t, from.stopCopy().next(), 'ERR_MIGRATION_STATE');
  await rejectsCode(t, from.complete(), 'ERR_MIGRATION_STATE');
  await rest.return();
  t.deepEqual(await ramOf(from.stopCopy()), [String(pages(5, 1))]);
});

test('rejects RAM that another region hides, at the start and when the VM stops', async (t) => {
  const source = await vm(t, [{}, {}, {}]);
  const cover = await source.memory.regions.addRegion({ name: 'cover', range: pages(2, 3), priority: 200 });
  await cover.addMapping({ backing: 'private' });
  await cover.mapToGuest();
  const error = await rejectsCode(t, startMigration(source), 'ERR_UNSUPPORTED');
  t.regex(error.message, /another region hides 12288 bytes of the RAM/);
  await cover.unmapFromGuest();
  const from = await startMigration(source);
  await cover.mapToGuest();
  await rejectsCode(t, from.stop(), 'ERR_UNSUPPORTED');
  t.is(from.phase, 'cancelled');
  t.true(source.migrations.every(({ state }) => state === 'running'));
});

test('requires all devices that are open in the manager', async (t) => {
  const { memory, devices } = await vm(t, [{}, {}, {}]);
  const iommu = Object.assign(new Log(), { openDevices: [devices.nic, devices.gpu] });
  const error = await rejectsCode(
    t,
    startMigration({ memory, devices: { nic: devices.nic }, iommu }),
    'ERR_INVALID_ARGUMENT',
  );
  t.regex(error.message, /cannot migrate without 0000:00:02.0, which is open/);
  await using _ = await startMigration({ memory, devices, iommu });
});

test('asks for the amount of new data before it reads it', async (t) => {
  const source = await vm(t, [{}, { preCopy: false }, {}]);
  await using from = await startMigration(source);
  const calls: string[] = [];
  for (const [index, migration] of source.migrations.entries()) {
    const save = migration.save.bind(migration);
    Object.defineProperty(migration, 'preCopyData', { get: () => calls.push(`amount ${index}`) });
    migration.save = (options) => {
      calls.push(`save ${index}`);
      return save(options);
    };
  }
  await ramOf(from.preCopy());
  t.deepEqual(calls, ['amount 0', 'save 0', 'amount 2', 'save 2']);
});
