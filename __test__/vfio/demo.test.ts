/**
 * The demo on real devices.
 */
import { spawnSync } from 'node:child_process';
import { extname } from 'node:path';
import { testWith } from './support/devices.ts';

testWith({ edu: 2, ivshmem: 1 }, 'the demo runs on real devices', async (t, { edu, ivshmem }) => {
  const script = new URL(`../../examples/demo${extname(import.meta.url)}`, import.meta.url).pathname;
  const devices = [edu[0], ivshmem[0], edu[1]].flatMap((bdf) => ['--device', bdf ?? '']);
  const { stdout, stderr, status } = spawnSync(process.execPath, [...process.execArgv, script, ...devices], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  t.is(status, 0, stderr);
  const outcomes = stdout.match(/the BAR has "[^"]*"|: it has "[^"]*"|at 0xd0000000: "[^"]*"/g) ?? [];
  t.deepEqual(
    outcomes.map((outcome) => outcome.slice(outcome.indexOf('"'))),
    ['"peer-to-peer!"', '"............."', '"peer-to-peer!"', '"peer-to-peer!"', '"peer-to-peer!"'],
    stdout,
  );
});
