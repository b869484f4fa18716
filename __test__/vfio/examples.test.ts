/**
 * The examples on real devices.
 */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { extname } from 'node:path';
import { testWith } from './support/devices.ts';

/** Runs an example to its end. */
function run(example: string, ...args: string[]): SpawnSyncReturns<string> {
  const script = new URL(`../../examples/${example}${extname(import.meta.url)}`, import.meta.url).pathname;
  return spawnSync(process.execPath, [...process.execArgv, script, ...args], { encoding: 'utf8', timeout: 100_000 });
}

testWith(
  { edu: 1, ivshmem: 1 },
  'the example edu-to-ivshmem runs on real devices',
  async (t, { edu: [edu = ''], ivshmem: [peer = ''] }) => {
    const { stdout, stderr, status } = run('edu-to-ivshmem', edu, peer);
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

testWith({ edu: 1 }, 'the example edu-factorial runs on a real device', async (t, { edu: [bdf = ''] }) => {
  const { status, stdout, stderr } = run('edu-factorial', bdf);
  t.is(status, 0, stderr);
  t.is(stdout, '10! = 3628800\nby DMA: there and back\n');
});

testWith({ nvme: 1 }, 'the example finds the disk and identifies it', async (t, { nvme: [bdf = ''] }) => {
  const { status, stdout, stderr } = run('nvme-identify');
  t.is(status, 0, stderr);
  t.true(stdout.startsWith(`1. ${bdf} is the guest's`), stdout);
  t.regex(stdout, /^4\. .*: model "QEMU NVMe Ctrl", serial "testbed"$/m);
  t.regex(stdout, /^ {3}namespace 1 has 131072 blocks of 512 bytes$/m);
  t.regex(stdout, /^5\. block 0 comes to 0x200000 by DMA: it begins with [0-9a-f]{32}$/m);
  t.regex(stdout, /^ {3}interrupts: 7 for commands to the controller, 1 for blocks$/m);
});
