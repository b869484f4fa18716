/**
 * The demo on real devices.
 */
import type { ExecutionContext } from 'ava';
import { spawnSync } from 'node:child_process';
import { extname } from 'node:path';
import { testWith } from './support/devices.ts';

/** The lines of the demo about the BAR, step by step. */
function outcomes(t: ExecutionContext, ...addresses: (string | undefined)[]): string[] {
  const program = new URL(`../../ts/cli/main${extname(import.meta.url)}`, import.meta.url).pathname;
  const devices = addresses.flatMap((bdf) => ['--device', bdf ?? '']);
  const command = [...process.execArgv, program, 'demo', ...devices];
  const { stdout, stderr, status } = spawnSync(process.execPath, command, { encoding: 'utf8', timeout: 60_000 });
  t.is(status, 0, stderr);
  t.log(stdout);
  const found = stdout.match(/the BAR has "[^"]*"|: it has "[^"]*"|at 0xd0000000: "[^"]*"/g) ?? [];
  return found.map((text) => text.slice(text.indexOf('"') + 1, -1));
}

const SENT = 'peer-to-peer!';
const NOTHING = '.............';

testWith({ edu: 1, ivshmem: 1 }, 'the demo runs on two real devices', async (t, { edu, ivshmem }) => {
  t.deepEqual(outcomes(t, edu[0], ivshmem[0]), [SENT, NOTHING, SENT, SENT]);
});

testWith(
  { edu: 2, ivshmem: 1 },
  'the demo runs on three real devices, and the last one joins late',
  async (t, { edu, ivshmem }) => {
    t.deepEqual(outcomes(t, edu[0], ivshmem[0], edu[1]), [SENT, NOTHING, SENT, SENT, SENT]);
  },
);
