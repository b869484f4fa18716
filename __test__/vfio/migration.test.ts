/** Migration states and data of the kernel's mtty sample. */
import { readdirSync } from 'node:fs';
import { AddressRange, PeerDmaError, startMigration, startRestore } from '../../ts/index.ts';
import { statePath } from '../../ts/pci/migration/state-path.ts';
import type { DeviceMigration, MigrationState } from '../../ts/pci/migration/device-migration.ts';
import { guest } from '../support/pages.ts';
import {
  DATA,
  LINE_CONTROL,
  LINE_STATUS,
  MODEM_CONTROL,
  SCRATCH,
  bytesOf,
  openMttys,
  read8,
  testMtty,
  write8,
} from './support/mtty.ts';

const STATES: readonly MigrationState[] = [
  'running',
  'running-p2p',
  'stop',
  'pre-copy',
  'pre-copy-p2p',
  'stop-copy',
  'resuming',
];
/** Bytes of the header, and of each port (Linux `struct mtty_data`). */
const HEADER = 24;

testMtty('a mediated device is opened by its UUID and reports its migration features', async (t) => {
  const [mtty] = await openMttys(t, 1);
  t.regex(mtty.device.bdf, /^[0-9a-f-]{36}$/);
  t.deepEqual(mtty.migration.supports, { stopCopy: true, preCopy: true, p2p: true });
  t.is(mtty.migration.state, 'running');
  t.true(mtty.migration.estimateSize() > BigInt(HEADER));
  t.not(mtty.migration.dmaLog, undefined);
  await t.throwsAsync(mtty.manager.open('00000000-0000-4000-8000-000000000000'), { code: 'ERR_DEVICE_NOT_FOUND' });
  await t.throwsAsync(mtty.manager.open(mtty.device.bdf), { code: 'ERR_DEVICE_IN_USE' });
  await mtty.device.close();
  t.throws(() => mtty.migration.state, { instanceOf: PeerDmaError, code: 'ERR_CLOSED' });
  await t.throwsAsync(mtty.migration.setState('stop'), { code: 'ERR_CLOSED' });
});

testMtty('the kernel takes the same paths between the states', async (t) => {
  const [{ device, migration }] = await openMttys(t, 1);
  for (const from of STATES) {
    for (const to of STATES) {
      await device.reset();
      t.is(migration.state, 'running');
      await migration.setState(from);
      const path = statePath(from, to, migration.supports);
      const needsData = from === 'resuming' && to !== 'resuming';
      if (path !== undefined && !needsData) {
        await migration.setState(to);
        t.is(migration.state, to, `${from} to ${to}`);
        continue;
      }
      const error = await t.throwsAsync<PeerDmaError>(migration.setState(to), { instanceOf: PeerDmaError });
      t.is(error.code, 'ERR_MIGRATION_STATE', `${from} to ${to}`);
      t.is(error.errno, 'EINVAL');
      t.is(migration.state, from);
      t.regex(error.message, new RegExp(`it is in ${from.toUpperCase().replaceAll('-', '_')}$`));
    }
  }
  await t.throwsAsync(migration.setState('error'), { code: 'ERR_MIGRATION_STATE' });
});

testMtty('the registers and FIFOs of two serial ports arrive in another device', async (t) => {
  const [source, target] = await openMttys(t, 2, 2);
  if (target === undefined) return;
  for (const port of [0, 1]) {
    write8(source, port, SCRATCH, 0x5a + port);
    write8(source, port, LINE_CONTROL, 0x03);
    write8(source, port, MODEM_CONTROL, 0x0b);
    for (const byte of Buffer.from(`port ${port}`)) write8(source, port, DATA, byte);
  }
  await source.migration.setState('stop-copy');
  const data = await bytesOf(source.migration.save());
  t.is(BigInt(data.length), source.migration.estimateSize());
  t.is((await bytesOf(source.migration.save())).length, 0, 'the data has ended');

  await target.migration.setState('resuming');
  await target.migration.load(Array.from(data, (byte) => Uint8Array.of(byte))); // pieces have no meaning
  await target.migration.setState('running');
  for (const port of [0, 1]) {
    t.is(read8(target, port, SCRATCH), 0x5a + port);
    t.is(read8(target, port, LINE_CONTROL), 0x03);
    t.is(read8(target, port, MODEM_CONTROL), 0x0b);
    let text = '';
    while ((read8(target, port, LINE_STATUS) & 1) === 1) text += String.fromCharCode(read8(target, port, DATA));
    t.is(text, `port ${port}`);
  }
  await source.migration.setState('running');
  t.is(read8(source, 0, SCRATCH), 0x5a, 'the source runs again');
});

testMtty('the data of PRE_COPY continues in STOP_COPY', async (t) => {
  const [source, target] = await openMttys(t, 1, 1);
  if (target === undefined) return;
  const { migration } = source;
  t.throws(() => migration.preCopyData, { code: 'ERR_MIGRATION_STATE' });
  await t.throwsAsync(bytesOf(migration.save()), { code: 'ERR_MIGRATION_STATE' });
  await migration.setState('pre-copy');
  t.deepEqual(migration.preCopyData, { initial: BigInt(HEADER), dirty: 0n });
  const early = await bytesOf(migration.save());
  t.is(early.length, HEADER);
  t.deepEqual(migration.preCopyData, { initial: 0n, dirty: 0n });
  t.is((await bytesOf(migration.save())).length, 0, 'the present end');
  write8(source, 0, SCRATCH, 0x77); // it runs
  await migration.setState('pre-copy-p2p');
  t.is((await bytesOf(migration.save())).length, 0);
  await migration.setState('stop-copy');
  t.throws(() => migration.preCopyData, { code: 'ERR_MIGRATION_STATE' });
  const late = await bytesOf(migration.save());
  await target.migration.setState('resuming');
  await target.migration.load([early, late]);
  await target.migration.setState('running');
  t.is(read8(target, 0, SCRATCH), 0x77);
});

testMtty('rejects data that is incomplete, too long or of another device', async (t) => {
  const [source, target, other] = await openMttys(t, 1, 1, 2);
  if (target === undefined || other === undefined) return;
  await source.migration.setState('stop-copy');
  const data = await bytesOf(source.migration.save());
  await t.throwsAsync(source.migration.load([data]), { code: 'ERR_MIGRATION_STATE' }, 'a session for reading');

  await target.migration.setState('resuming');
  await t.throwsAsync(bytesOf(target.migration.save()), { code: 'ERR_MIGRATION_STATE' }, 'a session for writing');
  await target.migration.load([data.subarray(0, data.length - 1)]);
  const incomplete = await t.throwsAsync<PeerDmaError>(target.migration.setState('stop'), { instanceOf: PeerDmaError });
  t.is(incomplete.code, 'ERR_MIGRATION_STATE');
  t.is(incomplete.errno, 'EINVAL');
  t.is(target.migration.state, 'resuming');
  await target.migration.load([data.subarray(data.length - 1)]);
  const long = await t.throwsAsync<PeerDmaError>(target.migration.load([data]), { instanceOf: PeerDmaError });
  t.is(long.code, 'ERR_MIGRATION_DATA');
  t.is(long.errno, 'ENOMEM');
  await target.migration.setState('stop');

  await other.migration.setState('resuming');
  const foreign = await t.throwsAsync<PeerDmaError>(other.migration.load([data]), { instanceOf: PeerDmaError });
  t.is(foreign.code, 'ERR_MIGRATION_DATA');
  t.is(foreign.errno, 'EFAULT');
  await other.device.reset();
  t.is(other.migration.state, 'running', 'a reset ends RESUMING');
  await t.throwsAsync(other.migration.load([data]), { code: 'ERR_MIGRATION_STATE' });
});

testMtty('a device logs DMA writes by itself', async (t) => {
  const [{ migration }] = await openMttys(t, 1);
  const log = migration.dmaLog;
  if (log === undefined) return t.fail('it has no log');
  const ram = AddressRange.of(0n, 16n << 20n);
  await log.start([ram], 4096n);
  t.deepEqual([...(await log.read(AddressRange.of(0n, 65n * 4096n), 4096n))], [0n, 0n], 'it writes nothing');
  await log.stop();
  await t.throwsAsync(log.read(AddressRange.of(1n, 4096n), 4096n), { code: 'ERR_UNALIGNED' });
});

testMtty('no session of data stays open', async (t) => {
  const openFiles = (): number => readdirSync('/proc/self/fd').length;
  const [source, target] = await openMttys(t, 1, 1);
  if (target === undefined) return;
  const before = openFiles();
  const transfer = async (from: DeviceMigration, to: DeviceMigration): Promise<void> => {
    await from.setState('pre-copy');
    await to.setState('resuming');
    t.is(openFiles(), before + 2);
    await to.load(from.save());
    await from.setState('stop-copy');
    await to.load(from.save());
    await to.setState('running');
    await from.setState('running');
    t.is(openFiles(), before);
  };
  for (let round = 0; round < 20; round++) await transfer(source.migration, target.migration);
  await target.migration.setState('resuming');
  await target.device.reset();
  await source.migration.setState('pre-copy');
  const own = openFiles();
  await source.device.close();
  t.true(openFiles() < own - 1, 'closing the device closes its session, too');
  await target.migration.setState('stop');
  t.is(target.migration.state, 'stop', 'after a reset, a new state has no old session');
});

testMtty('three serial ports of a VM migrate together with its RAM', async (t) => {
  const [one, ...others] = await openMttys(t, 1, 2, 1, 1, 2, 1);
  const [two, three, toOne, toTwo, toThree] = others;
  if (!two || !three || !toOne || !toTwo || !toThree) return t.fail();
  const target = await guest(t, { ram: [{ start: 0n, length: 16n << 20n }] });
  one.memory.write(0x5000n, Buffer.from('before'));
  for (const [index, mtty] of [one, two, three].entries()) write8(mtty, 0, SCRATCH, 0x10 + index);

  await using source = await startMigration({
    memory: one.memory,
    devices: { one: one.device, two: two.device, three: three.device },
  });
  await using restore = await startRestore({
    memory: target,
    devices: { one: toOne.device, two: toTwo.device, three: toThree.device },
  });
  t.deepEqual(
    [one, two, three].map(({ migration }) => migration.state),
    ['pre-copy', 'pre-copy', 'pre-copy'],
  );
  for await (const chunk of source.preCopy()) await restore.write(chunk);
  one.memory.write(0x5000n, Buffer.from('behind'));
  source.markDirty(AddressRange.of(0x5000n, 4096n));
  write8(two, 1, SCRATCH, 0x99);
  t.deepEqual(await source.remaining(), { ram: 4096n, devices: 0n });
  await source.stop();
  for await (const chunk of source.stopCopy()) await restore.write(chunk);
  await restore.complete();
  await source.complete();

  t.is(Buffer.from(target.read(0x5000n, 6)).toString(), 'behind');
  for (const [index, mtty] of [toOne, toTwo, toThree].entries()) t.is(read8(mtty, 0, SCRATCH), 0x10 + index);
  t.is(read8(toTwo, 1, SCRATCH), 0x99);
  t.deepEqual(
    [one, two, three, toOne, toTwo, toThree].map(({ migration }) => migration.state),
    ['stop', 'stop', 'stop', 'running', 'running', 'running'],
  );
});

testMtty('a restore that receives the data of another device ends with devices that run', async (t) => {
  const [from, to] = await openMttys(t, 1, 2);
  if (to === undefined) return t.fail();
  await using source = await startMigration({ memory: from.memory, devices: { port: from.device } });
  await source.stop();
  const restore = await startRestore({ memory: to.memory, devices: { port: to.device } });
  const transfer = async (): Promise<void> => {
    for await (const chunk of source.stopCopy()) await restore.write(chunk);
  };
  await t.throwsAsync(transfer(), { instanceOf: PeerDmaError, code: 'ERR_MIGRATION_DATA' });
  await restore.close();
  t.is(to.migration.state, 'running');
  await source.close();
  t.is(from.migration.state, 'running');
});
