// The VFIO tests in the testbed's guests, two guests at a time: each takes one processor.
import { run } from './command.mjs';
import { Count } from './count.mjs';

/** Bound of the VFIO tests in one guest. */
export const GUEST_SECONDS = '2700';
const AT_A_TIME = 2;

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
 * Runs the tests in all guests, and prints what each says as if they had run one after the other.
 *
 * @param {Count} count
 * @param {string[]} ava the test runner's command line
 */
export async function guestTests(count, ava) {
  // What is missing is fetched and built once, not by two guests at a time.
  const prepared = await run(process.execPath, ['testbed/cli.mjs', '--prepare']);
  if (prepared !== 0) return count.require('the testbed', prepared, 0);
  const waiting = GUESTS.map((guest) => ({ ...guest, output: new Output() }));
  for (const { output } of waiting)
    output.after = waiting[waiting.findIndex((one) => one.output === output) + 1]?.output;
  waiting[0]?.output.show();
  const all = [...waiting];
  const next = async () => {
    for (let guest = waiting.shift(); guest !== undefined; guest = waiting.shift()) {
      guest.count = await guestTest(guest, ava);
      guest.output.close();
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, next));
  for (const guest of all) count.include(guest.count);
}

async function guestTest({ what: which, options, output }, ava) {
  const what = `VFIO tests in the testbed, ${which}`;
  const count = new Count();
  output.write(`[peerdma] ${what} …\n`);
  const began = performance.now();
  const args = ['testbed/cli.mjs', ...options, '--timeout', GUEST_SECONDS, '--', 'node', ...ava];
  const status = await run(process.execPath, [...args, '--config', 'vfio.config.mjs'], {
    onLine: (line) => count.tap(line),
    write: (chunk) => output.write(chunk),
  });
  count.require(what, status, count.total);
  output.write(`[peerdma] ${what}: ${count.total} tests, ${((performance.now() - began) / 1000).toFixed(0)} s\n`);
  return count;
}

/** What a guest says: kept until it is its turn to be shown. */
class Output {
  after;
  #kept = [];
  #shown = false;
  #closed = false;

  write(chunk) {
    if (this.#shown) process.stdout.write(chunk);
    else this.#kept.push(chunk);
  }

  show() {
    this.#shown = true;
    for (const chunk of this.#kept.splice(0)) process.stdout.write(chunk);
    if (this.#closed) this.after?.show();
  }

  close() {
    this.#closed = true;
    if (this.#shown) this.after?.show();
  }
}
