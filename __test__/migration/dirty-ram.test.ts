/**
 * The RAM that a migration copies: from the logs of devices, of an IOMMU and of processors as one set.
 *
 * The IOMMU and the machine are fakes: __test__/vfio/kvm/migration.test.ts has processors of KVM.
 */
import test, { type ExecutionContext } from 'ava';
import { AddressRange, startMigration, type MigrationChunk, type MigratingMachine } from '../../ts/index.ts';
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
  t.deepEqual(
    await ramOf(from.preCopy()),
    [String(pages(4096, 4))],
    'outside of the log of a device, all pages count as written',
  );
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
