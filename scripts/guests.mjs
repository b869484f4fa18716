// The VFIO tests in the guests of the testbed. Each guest uses one processor.
import { run } from './command.mjs';
import { COMPILED_AVA } from './compile.mjs';
import { countTap } from './count.mjs';

/** @typedef {import('./side-by-side.mjs').Job} Job */

/** Timeout of the VFIO tests in one guest, in seconds. */
export const GUEST_SECONDS = '2700';

/** The kernels, the one that takes longest first. */
const KERNELS = ['7.3', '6.1', '6.12'];
/** Number of the guests that run all tests. */
const LONG_GUESTS = 4;
/** Linux in a virtual machine needs it (docs/decisions.md). */
export const ONE_PROCESSOR = ['--processors', '1'];
const IOMMUFD = ['--env', 'PEERDMA_VFIO_BACKEND=iommufd'];

/**
 * The guests, with the file of `__test__/vfio` that each runs. A kernel that is built comes after the others, which run
 * meanwhile.
 */
const GUESTS = [
  { what: 'Linux 6.1', kernel: '6.1', tests: 'all' },
  { what: 'Linux 6.12', kernel: '6.12', tests: 'all' },
  { what: 'Linux 7.3', kernel: '7.3', tests: 'all' },
  { what: 'Linux 7.3, iommufd', kernel: '7.3', tests: 'iommufd', options: IOMMUFD },
  { what: 'virtual machines', kernel: '7.3', tests: 'kvm' },
  { what: 'virtual machines, iommufd', kernel: '7.3', tests: 'kvm/peer-to-peer.test', options: IOMMUFD },
  { what: 'Linux in virtual machines', kernel: '7.3', tests: 'kvm/linux.test', options: ONE_PROCESSOR },
  {
    what: 'no interrupt remapping',
    kernel: '6.12',
    tests: 'without-interrupt-remapping.test',
    options: ['--unmapped-interrupts'],
  },
  {
    what: 'no interrupt remapping, iommufd',
    kernel: '7.3',
    tests: 'without-interrupt-remapping.test',
    options: [...IOMMUFD, '--unmapped-interrupts'],
  },
  { what: 'no IOMMU', kernel: '7.3', tests: 'without-iommu.test', options: ['--without-iommu'] },
  {
    what: 'an IOMMU of 39 address bits',
    kernel: '6.12',
    tests: 'kernel-refusals.test',
    options: ['--address-bits', '39'],
  },
];

/** The files of `__test__/vfio` that the guests run. */
export const TESTS_OF_GUESTS = [...new Set(GUESTS.map(({ tests }) => tests))];

/** Options of the testbed that select a compiled file of `__test__/vfio` (vfio.config.mjs). */
export const runsOnly = (tests) => ['--env', `PEERDMA_TESTBED_PLATFORM=${tests}`];

/**
 * Returns jobs for `sideBySide`: one for each kernel and one for each guest. The job of a kernel downloads or builds
 * it; the job of a guest waits for its kernel.
 *
 * @returns {{ kernels: Job[], long: Job[], short: Job[] }} the jobs of the kernels, which precede the others in the
 *   queue, and of the guests that run all tests or a few
 */
export function guestJobs() {
  const kernels = new Map(KERNELS.map((name) => [name, new Preparation(name)]));
  const jobs = GUESTS.map((guest) => async (count, write) => {
    if (await kernels.get(guest.kernel)?.done) await guestTest(guest, count, write);
  });
  return {
    kernels: [...kernels.values()].map((preparation) => (count, write) => preparation.run(count, write)),
    long: jobs.slice(0, LONG_GUESTS),
    short: jobs.slice(LONG_GUESTS),
  };
}

/** Downloads or builds a kernel. */
class Preparation {
  #kernel;
  #settle = (/** @type {boolean} */ _isReady) => {};
  /** Whether the kernel is ready. @type {Promise<boolean>} */
  done = new Promise((resolve) => (this.#settle = resolve));

  /** @param {string} kernel */
  constructor(kernel) {
    this.#kernel = kernel;
  }

  async run(count, write) {
    let status = 1;
    try {
      status = await run(process.execPath, ['testbed/cli.mjs', '--prepare', '--kernel', this.#kernel], { write });
    } finally {
      this.#settle(status === 0);
    }
    if (status !== 0) count.require(`the testbed, Linux ${this.#kernel}`, status, 0);
  }
}

async function guestTest({ what: which, kernel, tests, options = [] }, count, write) {
  const what = `VFIO tests in the testbed, ${which}`;
  write(`[peerdma] ${what} …\n`);
  const began = performance.now();
  const testbed = ['testbed/cli.mjs', '--kernel', kernel, ...options, ...runsOnly(tests), '--timeout', GUEST_SECONDS];
  const args = [...testbed, '--', 'node', ...COMPILED_AVA];
  const status = await countTap(count, ({ onLine }) => run(process.execPath, args, { onLine, write }));
  count.require(what, status, count.total);
  write(`[peerdma] ${what}: ${count.total} tests, ${((performance.now() - began) / 1000).toFixed(0)} s\n`);
}
