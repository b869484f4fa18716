/**
 * The example of peer-to-peer DMA between assigned devices, on real ones.
 */
import { spawnSync } from 'node:child_process';
import { extname } from 'node:path';
import { testWith } from '../support/devices.ts';

testWith(
  { edu: 1, ivshmem: 1 },
  'the example edu-to-ivshmem runs on real devices',
  async (t, { edu: [edu = ''], ivshmem: [peer = ''] }) => {
    const script = new URL(`../../../examples/edu-to-ivshmem${extname(import.meta.url)}`, import.meta.url).pathname;
    const command = [...process.execArgv, script, edu, peer];
    const { stdout, stderr, status } = spawnSync(process.execPath, command, { encoding: 'utf8', timeout: 60_000 });
    t.is(status, 0, stderr);
    const rows = stdout.split('\n').filter((line) => /^│ \d/.test(line));
    const cells = rows.map((line) => [...line.matchAll(/'([^']*)'/g)].map(([, cell = '']) => cell));
    t.deepEqual(
      cells.map(([sent, , , has]) => [sent, has]),
      [
        ['first', 'first'],
        ['stale', 'first'],
        ['moved', 'moved'],
        ['never', 'moved'],
      ],
      stdout,
    );
  },
);
