// The VFIO tests in the testbed's guests. Each guest takes one processor.
import { run } from './command.mjs';

/** Bound of the VFIO tests in one guest. */
export const GUEST_SECONDS = '2700';

const kernel = (name) => ['--kernel', name];
/** Tests for a guest that is made for them alone (vfio.config.mjs). */
const only = (tests) => ['--env', `PEERDMA_TESTBED_PLATFORM=${tests}`];

/** The longest first. */
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
 * The tests in all guests, as jobs that may run beside others.
 *
 * @param {string[]} ava the test runner's command line
 * @returns {import('./side-by-side.mjs').Job[]}
 */
export function guestTests(ava) {
  return GUESTS.map((guest) => (count, write) => guestTest(guest, ava, count, write));
}

/** Fetches and builds what guests are made of, once, so that two guests don't do it at a time. */
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
