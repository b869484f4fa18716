// The test suites, and the count over all of them.
import { run, say } from './command.mjs';
import { addressSanitizer, miri } from './native-checks.mjs';
import { compiled } from './setup.mjs';

/** Guests that `npm test` runs the VFIO tests in. */
const KERNELS = ['6.1', '6.12', '7.3'];
/** Bound of the VFIO tests in one guest, in seconds. */
const GUEST_TIMEOUT = 1200;

const AVA = ['node_modules/ava/entrypoints/cli.mjs', '--tap'];

/** Everything: native core, unit and simulation tests, then real VFIO in the testbed. */
export async function allTests() {
  const count = new Count();
  await rustTests(count);
  await addressSanitizer(count);
  await miri(count);
  await ava(count, 'unit and simulation tests', []);
  await compiled();
  for (const kernel of KERNELS) await guestTests(count, `Linux ${kernel}`, ['--kernel', kernel]);
  const platform = 'without-interrupt-remapping.test';
  await guestTests(count, 'no interrupt remapping', [
    '--unmapped-interrupts',
    '--env',
    `PEERDMA_TESTBED_PLATFORM=${platform}`,
  ]);
  await guestTests(count, 'an IOMMU of 39 address bits', [
    '--address-bits',
    '39',
    '--env',
    'PEERDMA_TESTBED_PLATFORM=kernel-refusals.test',
  ]);
  return count.close();
}

/** What needs neither privileges nor a testbed. */
export async function unitTests(args) {
  const count = new Count();
  await rustTests(count);
  await ava(count, 'unit and simulation tests', args);
  return count.close();
}

/** Real VFIO on this machine, with the devices that PEERDMA_VFIO_DEVICES names. */
export async function vfioTests(args) {
  const count = new Count();
  if (!process.env.PEERDMA_VFIO_DEVICES) {
    say('PEERDMA_VFIO_DEVICES=BDF,BDF names the devices to test with: bound to vfio-pci, and not in use');
    return 2;
  }
  await compiled();
  await ava(count, 'VFIO tests', ['--config', 'vfio.config.mjs', ...args]);
  return count.close();
}

async function rustTests(count) {
  say('tests of the native core (cargo test) …');
  const seen = count.total;
  const status = await run('cargo', ['test', '--quiet', '-p', 'peerdma-core'], {
    onLine: (line) => {
      const result = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/.exec(line);
      if (result === null) return;
      count.add(Number(result[1]), Number(result[2]), Number(result[3]));
    },
  });
  count.require('cargo test', status, count.total - seen);
}

async function ava(count, what, args) {
  say(`${what} …`);
  const seen = count.total;
  const status = await run(process.execPath, [...AVA, ...args], { onLine: (line) => count.tap(line) });
  count.require(what, status, count.total - seen);
}

async function guestTests(count, which, options) {
  const what = `VFIO tests in the testbed, ${which}`;
  say(`${what} …`);
  const seen = count.total;
  const guest = ['testbed/cli.mjs', ...options, '--timeout', String(GUEST_TIMEOUT), '--'];
  const status = await run(process.execPath, [...guest, 'node', ...AVA, '--config', 'vfio.config.mjs'], {
    onLine: (line) => count.tap(line),
  });
  count.require(what, status, count.total - seen);
}

/** Counts tests; a suite that failed without a failing test, or ran none, is a failure too. */
class Count {
  passed = 0;
  failed = 0;
  skipped = 0;
  #failures = [];
  /** Failures of the suites before this one. */
  #required = 0;

  get total() {
    return this.passed + this.failed;
  }

  add(passed, failed, skipped) {
    this.passed += passed;
    this.failed += failed;
    this.skipped += skipped;
    if (failed > 0) this.#failures.push(`${failed} of cargo test`);
  }

  /** A line of the Test Anything Protocol. */
  tap(line) {
    const result = /^(not )?ok \d+ - (.*)$/.exec(line);
    if (result === null) return;
    const [, not, name] = result;
    if (/# (SKIP|TODO)/.test(name)) this.skipped++;
    else if (not === undefined) this.passed++;
    else {
      this.failed++;
      this.#failures.push(name);
    }
  }

  require(what, status, ran) {
    if (status === 0 && ran > 0) return;
    const told = this.#failures.length > this.#required;
    this.#required = this.#failures.length;
    if (status !== 0 && told) return;
    this.failed++;
    this.#failures.push(status === 0 ? `${what}: no test ran` : `${what}: exit status ${status}`);
  }

  /** Prints the closing line. */
  close() {
    for (const failure of this.#failures) say(`failed: ${failure}`);
    console.log(`${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped`);
    return this.failed === 0 ? 0 : 1;
  }
}
