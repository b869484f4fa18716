/**
 * A page of RAM that the machine loses while an IOMMU maps it (CONFIG_MEMORY_FAILURE).
 */
import { spawnSync } from 'node:child_process';
import { extname } from 'node:path';
import test from 'ava';
import { BACKEND } from './support/backend.ts';
import { testWith } from './support/devices.ts';
import { CAN_LOSE_PAGES } from './support/lost-page.ts';

const TITLES = [
  'a page that the machine loses affects no other page, and is unmapped and unpinned as any other',
  'reading a page that the machine has lost ends the process with SIGBUS',
] as const;

function run(...args: readonly string[]) {
  const script = new URL(`programs/lost-page${extname(import.meta.url)}`, import.meta.url).pathname;
  return spawnSync(process.execPath, [...process.execArgv, script, ...args], { encoding: 'utf8', timeout: 60_000 });
}

if (CAN_LOSE_PAGES) {
  testWith({ edu: 1 }, TITLES[0], async (t, { edu: [bdf = ''] }) => {
    const { status, stdout, stderr } = run(bdf);
    t.is(status, 0, stderr);
    t.deepEqual(JSON.parse(stdout), {
      beside: true,
      byFile: 'ERR_SYSTEM EIO',
      device: 'no error',
      unmap: 'no error',
      pinned: 0,
      elsewhere: true,
      // iommufd pins the pages of a file, also lost ones (Linux 7.3, memfd_pin_folios).
      mapAgain: BACKEND === 'type1' ? 'ERR_MEMORY_FAULT EHWPOISON' : 'no error',
    });
  });
  testWith({ edu: 1 }, TITLES[1], async (t, { edu: [bdf = ''] }) => {
    const { signal, stderr } = run(bdf, 'read');
    t.is(signal, 'SIGBUS', stderr);
  });
} else {
  for (const title of TITLES) test.serial.skip(`${title} (needs a kernel with CONFIG_MEMORY_FAILURE)`, () => {});
}
