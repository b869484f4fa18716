// Runs the test suites and counts their tests.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { run, say, top } from './command.mjs';
import { Count } from './count.mjs';
import { GUEST_SECONDS, guestTests, prepareGuests } from './guests.mjs';
import { addressSanitizer, miri } from './native-checks.mjs';
import { compiled } from './setup.mjs';
import { sideBySide } from './side-by-side.mjs';

const AVA = ['node_modules/ava/entrypoints/cli.mjs', '--tap'];

/** Runs all tests: native core, unit and simulation tests, then real VFIO in the testbed. */
export async function allTests() {
  const count = new Count();
  await coreAndUnitTests(count, []);
  await compiled();
  const guests = (await prepareGuests(count)) ? guestTests(AVA) : [];
  // Each of these jobs uses one processor for most of its time.
  await sideBySide(count, [miri, addressSanitizer, ...guests]);
  return count.close();
}

/** Runs the tests that need neither privileges nor a testbed. */
export async function unitTests(args) {
  const count = new Count();
  await coreAndUnitTests(count, args);
  return count.close();
}

/** Runs the VFIO tests on this machine, with the devices that PEERDMA_VFIO_DEVICES names. */
export async function vfioTests(args) {
  const count = new Count();
  if (!process.env.PEERDMA_VFIO_DEVICES) {
    say('set PEERDMA_VFIO_DEVICES=BDF,BDF to the devices of the tests: bound to vfio-pci, and not in use');
    return 2;
  }
  await compiled();
  await ava(count, 'VFIO tests', ['--config', 'vfio.config.mjs', ...args], (text) => process.stdout.write(text));
  return count.close();
}

/** Runs a file of the VFIO tests in a guest of the testbed. Options of the testbed precede its name. */
export async function guestTest(args) {
  const name = args.at(-1);
  const file = [`${name}.test`, name].find((each) => existsSync(join(top, `__test__/vfio/${each}.ts`)));
  if (file === undefined) {
    say('npm run test:guest -- [OPTION OF THE TESTBED…] NAME: __test__/vfio/NAME.test.ts, or all, or iommufd');
    return 2;
  }
  await compiled();
  const options = ['--timeout', GUEST_SECONDS, ...args.slice(0, -1), '--env', `PEERDMA_TESTBED_PLATFORM=${file}`];
  return run(process.execPath, ['testbed/cli.mjs', ...options, '--', 'node', ...AVA, '--config', 'vfio.config.mjs']);
}

/** Runs both in parallel: the tests of the native core use one processor for most of their time. */
function coreAndUnitTests(count, args) {
  const unit = (own, write) => ava(own, 'unit and simulation tests', args, write);
  return sideBySide(count, [rustTests, unit]);
}

async function rustTests(count, write) {
  write('[peerdma] tests of the native core (cargo test) …\n');
  const seen = count.total;
  const status = await run('cargo', ['test', '--quiet', '-p', 'peerdma-core'], {
    write,
    onLine: (line) => {
      const result = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/.exec(line);
      if (result === null) return;
      count.add(Number(result[1]), Number(result[2]), Number(result[3]));
    },
  });
  count.require('cargo test', status, count.total - seen);
}

async function ava(count, what, args, write) {
  write(`[peerdma] ${what} …\n`);
  const seen = count.total;
  const status = await run(process.execPath, [...AVA, ...args], { write, onLine: (line) => count.tap(line) });
  count.require(what, status, count.total - seen);
}
