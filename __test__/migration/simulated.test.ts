/** The data of a simulated device. Every part arrives, whatever the chunks are. Other data is rejected. */
import test, { type ExecutionContext } from 'ava';
import { EventFd, type DeviceMigration, type MigrationState } from '../../ts/index.ts';
import { SimulatedDevice, SimulatedIommu, type SimulatedDeviceOptions } from '../../ts/testing.ts';
import { MASTER, MEMORY, command, read16, simulated } from '../pci/simulated/support.ts';
import { SECTION } from '../../ts/pci/simulated/migration/device-parts.ts';
import { shortRecord } from '../../ts/pci/simulated/migration/records.ts';
import { RestoredState } from '../../ts/pci/simulated/migration/restored-state.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';

const OPTIONS: Partial<SimulatedDeviceOptions> = {
  bars: [{ index: 0, length: 12288n }],
  msix: { vectors: 4, bar: 0 },
  pcie: {},
  interruptPin: true,
  resettable: true,
  migration: {},
};

function device(
  t: ExecutionContext,
  options: Partial<SimulatedDeviceOptions> = {},
): [SimulatedDevice, DeviceMigration] {
  const made = simulated(t, { ...OPTIONS, ...options });
  if (made.migration === undefined) throw new Error('it cannot migrate');
  return [made, made.migration];
}

async function bytesOf(migration: DeviceMigration): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const chunk of migration.save()) all.push(chunk);
  return Buffer.concat(all);
}

/** Pieces of 1 to 40 bytes. */
function* piecesOf(bytes: Uint8Array): Generator<Uint8Array> {
  let length = 1;
  for (let start = 0; start < bytes.length; start += length) {
    length = (length * 7 + 3) % 40 || 1;
    yield bytes.subarray(start, start + length);
  }
}

test('config space, memory, interrupts and queued DMA arrive', async (t) => {
  const iommu = new SimulatedIommu();
  const [source, from] = device(t, { iommu });
  const [target, to] = device(t, { iommu });
  command(source, MEMORY | MASTER);
  source.regions[0]?.write(8192n, Buffer.from('contents'));
  using event = EventFd.create();
  source.interrupts.connect('msix', [undefined, event]);
  source.raise('msix', 0); // pending: its vector is not connected
  source.raise('intx');
  await from.setState('stop');
  source.queueDmaWrite(0x1000n, Uint8Array.of(1, 2, 3));
  source.queueDmaWrite(0x2000n, new Uint8Array());
  await from.setState('stop-copy');
  const data = await bytesOf(from);
  t.is((await bytesOf(from)).length, 0, 'the data has ended');

  await to.setState('resuming');
  await to.load(piecesOf(data));
  await to.setState('stop');
  t.is(read16(target.config, 4n), MEMORY | MASTER);
  t.is(Buffer.from(target.regions[0]?.read(8192n, 8) ?? []).toString(), 'contents');
  t.is(target.queuedDmaWrites, 2);
  t.true((read16(target.config, 6n) & 8) !== 0, 'the pin is asserted');
  target.interrupts.connect('msix', [event]);
  t.true(event.fd > 0);
  await to.setState('running');
  while (target.queuedDmaWrites > 0) await new Promise(setImmediate);
  t.is(target.lastFault?.code, 'ERR_DMA_FAULT', 'nothing is mapped there');
});

test('data that is read while the device runs is read again where it changed', async (t) => {
  const [source, from] = device(t);
  const [target, to] = device(t);
  await from.setState('pre-copy');
  t.true(from.preCopyData.initial > 12288n);
  await to.setState('resuming');
  await to.load(from.save());
  t.deepEqual(from.preCopyData, { initial: 0n, dirty: 0n });
  source.regions[0]?.write(4095n, Uint8Array.of(1, 2));
  t.is(from.preCopyData.dirty, 8192n);
  await to.load(from.save());
  t.is(from.preCopyData.dirty, 0n);
  source.regions[0]?.write(9000n, Uint8Array.of(3));
  await from.setState('stop-copy');
  const rest = await bytesOf(from);
  t.true(rest.length < 12288, `only changes: ${rest.length}`);
  await to.load([rest]);
  await to.setState('running');
  t.deepEqual(target.regions[0]?.read(0n, 12288), source.regions[0]?.read(0n, 12288));
});

test('a device that is not stopped in its first copy continues with it', async (t) => {
  const [source, from] = device(t);
  const [target, to] = device(t);
  await from.setState('pre-copy');
  await to.setState('resuming');
  for await (const chunk of from.save()) {
    await to.load([chunk]);
    break;
  }
  source.regions[0]?.write(9000n, Uint8Array.of(3));
  await from.setState('stop-copy');
  await to.load(from.save());
  await to.setState('running');
  t.deepEqual([...(target.regions[0]?.read(9000n, 1) ?? [])], [3]);
});

test('rejects data that is incomplete, of another device, or continues after its end', async (t) => {
  const [, from] = device(t);
  await from.setState('stop-copy');
  const data = await bytesOf(from);
  const [target, to] = device(t);
  await to.setState('resuming');
  await to.load([data.subarray(0, -1)]);
  await rejectsCode(t, to.setState('running'), 'ERR_MIGRATION_STATE');
  t.is(to.state, 'resuming');
  await to.load([data.subarray(-1)]);
  await rejectsCode(t, to.load([data]), 'ERR_MIGRATION_DATA');
  await target.reset();
  t.is(to.state, 'running');
  await rejectsCode(t, to.load([data]), 'ERR_MIGRATION_STATE');
  const [, other] = device(t, { bars: [{ index: 0, length: 16384n }] });
  await other.setState('resuming');
  await rejectsCode(t, other.load([data]), 'ERR_MIGRATION_DATA');
  for (const at of [0, 30, data.length - 30]) {
    const [, spoiled] = device(t);
    await spoiled.setState('resuming');
    const bytes = Buffer.from(data);
    bytes.fill(0xff, at, at + 24);
    const load = async (): Promise<void> => {
      await spoiled.load([bytes]);
      await spoiled.setState('stop');
    };
    const error = await t.throwsAsync(load(), undefined, `at ${at}`);
    t.true(error instanceof Error);
  }
});

test('yields parts of a buffer of the caller', async (t) => {
  const [source, from] = device(t);
  const [target, to] = device(t);
  source.regions[0]?.write(
    0n,
    new Uint8Array(12288).map((_, at) => at),
  );
  await from.setState('stop-copy');
  await to.setState('resuming');
  const buffer = new Uint8Array(1000);
  let parts = 0;
  for await (const chunk of from.save({ buffer })) {
    if (chunk.buffer === buffer.buffer) parts++;
    await to.load([chunk]);
  }
  t.is(parts, 13);
  await to.setState('running');
  t.deepEqual(target.regions[0]?.read(0n, 12288), source.regions[0]?.read(0n, 12288));
  await rejectsCode(t, from.save({ buffer: new Uint8Array() })[Symbol.asyncIterator]().next(), 'ERR_INVALID_ARGUMENT');
});

test('the registers of edu arrive', async (t) => {
  const make = (): SimulatedDevice => {
    const made = SimulatedDevice.edu({ bdf: '0000:00:05.0', migration: {} });
    t.teardown(() => made.close());
    return made;
  };
  const [source, target] = [make(), make()];
  source.regions[0]?.write32(8n, 5);
  source.regions[0]?.write64(0x80n, 0x1234n);
  await source.migration?.setState('stop-copy');
  await target.migration?.setState('resuming');
  if (source.migration !== undefined) await target.migration?.load(source.migration.save());
  await target.migration?.setState('running');
  t.is(target.regions[0]?.read32(8n), 120);
  t.is(target.regions[0]?.read64(0x80n), 0x1234n);
});

test('a reset during a change of state is not overwritten by it', async (t) => {
  const [source, from] = device(t, { iommu: new SimulatedIommu() });
  command(source, MEMORY | MASTER);
  source.queueDmaWrite(0n, Uint8Array.of(1));
  const stopping = from.setState('stop');
  await Promise.resolve();
  await source.reset();
  await rejectsCode(t, stopping, 'ERR_MIGRATION_STATE');
  t.is(from.state, 'running');
  command(source, MEMORY | MASTER);
  source.queueDmaWrite(0n, Uint8Array.of(1));
  while (source.queuedDmaWrites > 0) await new Promise(setImmediate);
  t.is(source.lastFault?.code, 'ERR_DMA_FAULT', 'it does DMA');
});

test('limits the bytes of a section over many records', (t) => {
  const part = { section: 9, save: () => new Uint8Array(), load: () => {} };
  const restored = new RestoredState('0000:00:01.0', Uint8Array.of(1), [], [part]);
  restored.take(shortRecord(SECTION.identity, Uint8Array.of(1)));
  const record = shortRecord(9, new Uint8Array(1 << 26));
  for (let n = 0; n < 4; n++) restored.take(record);
  throwsCode(t, () => restored.take(record), 'ERR_MIGRATION_DATA');
});

test('does no DMA and accepts none where its state forbids it', async (t) => {
  const iommu = new SimulatedIommu();
  const [source, from] = device(t, { iommu });
  command(source, MEMORY | MASTER);
  const idle: MigrationState[] = ['running-p2p', 'pre-copy-p2p', 'stop-copy', 'stop'];
  for (const state of idle) {
    await from.setState(state);
    throwsCode(t, () => source.dmaWrite(0n, Uint8Array.of(1)), 'ERR_MIGRATION_STATE', state);
    throwsCode(t, () => source.dmaRead(0n, 1), 'ERR_MIGRATION_STATE', state);
  }
  await from.setState('pre-copy');
  throwsCode(t, () => source.dmaRead(0n, 1), 'ERR_DMA_FAULT');
});

test('a device without the option, or with registers that cannot be saved, does not migrate', async (t) => {
  t.is(simulated(t).migration, undefined);
  const registers = { read: (_: bigint, length: number) => new Uint8Array(length), write: () => {} };
  throwsCode(
    t,
    () => new SimulatedDevice({ bdf: '0000:00:07.0', bars: [{ index: 0, length: 16n, registers }], migration: {} }),
    'ERR_INVALID_ARGUMENT',
  );
});
