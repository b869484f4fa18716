/**
 * Limits of the kernel that are reached half-way. A failed replay leaves nothing behind, a failed change restores
 * everything, and both succeed once the cause is removed.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { extname } from 'node:path';
import { GuestMemory, PeerDmaError } from '../../ts/index.ts';
import { testWith } from './support/devices.ts';
import { ENTRY_LIMIT, setEntryLimit } from './support/entry-limit.ts';
import type { MemlockReport } from './support/memlock-report.ts';
import { RAM_LENGTH, RAM_START } from './support/rig.ts';
import { PIECE, openInOwnContainer, reaches, scattered, completeState } from './support/two-containers.ts';

const APART = 0x2000_0000n;
const pieces = (count: number): bigint[] =>
  Array.from({ length: count }, (_, index) => APART + BigInt(index) * 2n * PIECE);

testWith(
  { edu: 2 },
  'a replay that reaches the limit of mappings leaves nothing, and succeeds without the limit',
  async (t, { edu }) => {
    const memory = await GuestMemory.create({ ram: [{ start: RAM_START, length: RAM_LENGTH }] });
    t.teardown(() => memory.close());
    const { manager, edu: early } = await openInOwnContainer(t, memory, edu[0] ?? '');
    const addresses = pieces(6);
    const { region, file } = await scattered(t, memory, 'scattered', addresses);
    await region.mapToGuest();
    const before = await completeState(memory, manager);
    setEntryLimit(t, 4); // of 7
    const late = () => openInOwnContainer(t, memory, edu[1] ?? '');
    const error = await t.throwsAsync(late(), { instanceOf: PeerDmaError, code: 'ERR_MAPPING_LIMIT' });
    t.is(error?.errno, 'ENOSPC');
    t.is(String(error?.range?.start), String(addresses[3]), 'the fifth exceeds the limit');
    t.deepEqual(await completeState(memory, manager), before);

    writeFileSync(ENTRY_LIMIT, '65535');
    const { edu: engine } = await late();
    t.true(await reaches(memory, engine, addresses[5] ?? 0n, file, 5n * PIECE));
    t.true(await reaches(memory, early, addresses[5] ?? 0n, file, 5n * PIECE));
  },
);

for (const order of ['first', 'last'] as const) {
  testWith(
    { edu: 2 },
    `a change that reaches the limit of mappings in the container opened ${order} restores everything`,
    async (t, { edu }) => {
      const memory = await GuestMemory.create({ ram: [{ start: RAM_START, length: RAM_LENGTH }] });
      t.teardown(() => memory.close());
      const { region: older } = await scattered(t, memory, 'older', [0x4000_0000n]);
      await older.mapToGuest();
      if (order === 'first') setEntryLimit(t, 4);
      const one = await openInOwnContainer(t, memory, edu[0] ?? '');
      if (order === 'first') writeFileSync(ENTRY_LIMIT, '65535');
      else setEntryLimit(t, 4);
      const two = await openInOwnContainer(t, memory, edu[1] ?? '');
      const addresses = pieces(3);
      const { region, file } = await scattered(t, memory, 'scattered', addresses);
      const before = await completeState(memory, one.manager, two.manager);
      for (let attempt = 0; attempt < 2; attempt++) {
        const error = await t.throwsAsync(region.mapToGuest(), { instanceOf: PeerDmaError, code: 'ERR_MAPPING_LIMIT' });
        t.is(error?.errno, 'ENOSPC');
        t.is(error?.target, (order === 'first' ? one : two).manager.inspect().containers[0]?.name);
        t.is(error?.range?.start, addresses[2], 'the third exceeds the limit');
        t.deepEqual(await completeState(memory, one.manager, two.manager), before);
      }
      for (const { edu: engine } of [one, two]) t.false(await reaches(memory, engine, addresses[0] ?? 0n, file));

      await older.unmapFromGuest();
      await region.mapToGuest();
      for (const { edu: engine } of [one, two])
        t.true(await reaches(memory, engine, addresses[2] ?? 0n, file, 2n * PIECE));
    },
  );
}

testWith(
  { edu: 2 },
  'a replay and a change that reach the limit of locked memory restore everything',
  async (t, { edu }) => {
    const script = new URL(`programs/at-the-memlock-limit${extname(import.meta.url)}`, import.meta.url).pathname;
    const wrapper = ['--bounding-set=-ipc_lock', '--inh-caps=-ipc_lock', process.execPath];
    const { stdout, stderr, status } = spawnSync(
      'setpriv',
      [...wrapper, ...process.execArgv, script, edu[0] ?? '', edu[1] ?? ''],
      {
        encoding: 'utf8',
        timeout: 60_000,
      },
    );
    t.is(status, 0, stderr);
    const report = JSON.parse(stdout) as MemlockReport;
    const MiB = 1 << 20;
    t.is(report.alone.locked, 8 * MiB, 'two regions in one container');
    for (const refused of [report.replay, report.change]) {
      t.like(refused, { code: 'ERR_MEMLOCK_LIMIT', errno: 'ENOMEM' });
    }
    t.true(report.replay.half, 'half of it would fit');
    t.is(report.replay.locked, 8 * MiB, 'nothing of the second container');
    t.true(report.replay.asBefore);
    t.is(report.both.locked, 16 * MiB);
    t.is(report.change.locked, 16 * MiB, 'nothing of the change, in either container');
    t.true(report.change.asBefore);
    t.deepEqual(report.change.reached, [false, false]);
    t.is(report.after.locked, 24 * MiB);
    t.deepEqual(report.after.reached, [true, true]);
  },
);
