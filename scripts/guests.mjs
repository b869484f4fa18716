// The VFIO tests in the guests of the testbed. Each guest uses one processor.
import { run } from './command.mjs';

/** Timeout of the VFIO tests in one guest, in seconds. */
export const GUEST_SECONDS = '2700';

const kernel = (name) => ['--kernel', name];
/** Selects the tests of a guest that runs these tests alone (vfio.config.mjs). */
const only = (tests) => ['--env', `PEERDMA_TESTBED_PLATFORM=${tests}`];

/** The guests, the longest run first. */
const GUESTS = [
  { what: 'Linux 6.1', options: kernel('6.1') },
  { what: 'Linux 6.12', options: kernel('6.12') },
  { what: 'Linux 7.3', options: kernel('7.3') },
  {
    what: 'Linux 7.3, iommufd',
    options: [...kernel('7.3'), '--env', 'PEERDMA_VFIO_BACKEND=iommufd', ...only('iommufd')],
  },
  { what: 'no interrupt remapping', options: ['--unmapped-interrupts', ...only('without-interrupt-remapping.test')] },
  {
    what: 'no interrupt remapping, iommufd',
    options: [
      ...kernel('7.3'),
      '--env',
      'PEERDMA_VFIO_BACKEND=iommufd',
      '--unmapped-interrupts',
      ...only('without-interrupt-remapping.test'),
    ],
  },
  { what: 'an IOMMU of 39 address bits', options: ['--address-bits', '39', ...only('kernel-refusals.test')] },
];

/**
 * Returns the tests of all guests as jobs that can run in parallel.
 *
 * @param {string[]} ava command line of the test runner
 * @returns {import('./side-by-side.mjs').Job[]}
 */
export function guestTests(ava) {
  return GUESTS.map((guest) => (count, write) => guestTest(guest, ava, count, write));
}

/** Downloads and builds the parts of the guests before the guests start in parallel. */
export async function prepareGuests(count) {
  const status = await run(process.execPath, ['testbed/cli.mjs', '--prepare']);
  if (status !== 0) count.require('the testbed', status, 0);
  return status === 0;
}

async function guestTest({ what: which, options }, ava, count, write) {
  const what = `VFIO tests in the testbed, ${which}`;
  write(`[peerdma] ${what} …\n`);
  const began = performance.now();
  const args = ['testbed/cli.mjs', ...options, '--timeout', GUEST_SECONDS, '--', 'node', ...ava];
  const status = await run(process.execPath, [...args, '--config', 'vfio.config.mjs'], {
    onLine: (line) => count.tap(line),
    write,
  });
  count.require(what, status, count.total);
  write(`[peerdma] ${what}: ${count.total} tests, ${((performance.now() - began) / 1000).toFixed(0)} s\n`);
}
