// Runs the test suites and counts their tests.
import { run, say, top } from './command.mjs';
import { COMPILED_AVA, compileTests } from './compile.mjs';
import { Count, countTap } from './count.mjs';
import { GUEST_SECONDS, TESTS_OF_GUESTS, guestJobs, runsOnly } from './guests.mjs';
import { WITH_KVM, addressSanitizer, miri } from './native-checks.mjs';
import { sideBySide } from './side-by-side.mjs';
import { FILES_OF_SEVERAL, findTests } from './test-names.mjs';

const AVA = ['node_modules/ava/entrypoints/cli.mjs', '--tap'];
const UNIT = 'unit and simulation tests';

/**
 * Runs all tests in one queue: native core, unit and simulation tests, and real VFIO in the testbed.
 *
 * @param {{ lint?: boolean }} [options] `lint`: runs `npm run lint`, too
 */
export async function allTests({ lint = false } = {}) {
  const count = new Count();
  await compileTests(TESTS_OF_GUESTS);
  const guests = guestJobs();
  // Most of these jobs use one processor each, so the tests of TypeScript run one file at a time.
  const unit = (own, write) => tap(own, UNIT, [...AVA, '--concurrency', '1'], write);
  const native = [miri, rustTests, addressSanitizer];
  const jobs = [...guests.kernels, ...guests.long, unit, ...native, ...(lint ? [lintAll] : []), ...guests.short];
  await sideBySide(count, jobs);
  return count.close();
}

/**
 * Runs the tests that a name selects: files of unit tests, or a file of the VFIO tests in a guest.
 *
 * @param {string[]} args options of the testbed, then the name
 * @returns {Promise<number>} the exit status
 */
export async function namedTests(args) {
  const name = args.at(-1) ?? '';
  const { unit, guests, nearest } = await findTests(name, top);
  if (unit.length + guests.length === 0) {
    say(`no test is named ${name}. The nearest names are ${nearest.join(', ')}.`);
    return 2;
  }
  if (guests.length > 1) {
    say(`${name} is the name of several tests that run in a guest. Name one of ${guests.join(', ')}.`);
    return 2;
  }
  const status = unit.length > 0 ? await unitTests(unit, []) : 0;
  return guests.length > 0 ? Math.max(status, await guestTest([...args.slice(0, -1), ...guests])) : status;
}

/** Runs the tests that need neither privileges nor a testbed. */
export async function unitTests(args, native = [rustTests]) {
  const count = new Count();
  const unit = (own, write) => tap(own, UNIT, [...AVA, ...args], write);
  await sideBySide(count, [...native, unit]); // the native core uses one processor for most of its time
  return count.close();
}

/** Runs the VFIO tests on this machine, with the devices that PEERDMA_VFIO_DEVICES names. */
export async function vfioTests(args) {
  const count = new Count();
  if (!process.env.PEERDMA_VFIO_DEVICES) {
    say('set PEERDMA_VFIO_DEVICES=BDF,BDF to the devices of the tests: bound to vfio-pci, and not in use');
    return 2;
  }
  await compileTests([process.env.PEERDMA_TESTBED_PLATFORM ?? 'all']);
  await tap(count, 'VFIO tests', [...COMPILED_AVA, ...args], (text) => process.stdout.write(text));
  return count.close();
}

/** Runs a file of the VFIO tests in a guest of the testbed. Options of the testbed precede its name. */
export async function guestTest(args) {
  const { guests, nearest } = await findTests(args.at(-1) ?? '', top, { guestsOnly: true });
  const [name] = guests;
  if (name === undefined || guests.length > 1) {
    say('npm run test:guest -- [OPTION OF THE TESTBED…] NAME: __test__/vfio/NAME.test.ts, or all, iommufd or kvm');
    say(`the nearest names are ${(guests.length > 1 ? guests : nearest).join(', ')}`);
    return 2;
  }
  const tests = FILES_OF_SEVERAL.includes(name) ? name : `${name}.test`;
  await compileTests([tests]);
  const options = ['--timeout', GUEST_SECONDS, ...args.slice(0, -1), ...runsOnly(tests)];
  return run(process.execPath, ['testbed/cli.mjs', ...options, '--', 'node', ...COMPILED_AVA]);
}

async function lintAll(count, write) {
  write('[peerdma] npm run lint …\n');
  const options = { write, onLine: () => {} };
  const status = await run(process.execPath, ['scripts/run.mjs', 'lint'], options);
  count.require('npm run lint', status, 1);
}

async function rustTests(count, write) {
  write('[peerdma] tests of the native core (cargo test) …\n');
  const seen = count.total;
  const status = await run('cargo', ['test', '--quiet', '-p', 'peerdma-core', '--', ...WITH_KVM], {
    write,
    onLine: (line) => {
      const result = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/.exec(line);
      if (result === null) return;
      count.add(Number(result[1]), Number(result[2]), Number(result[3]));
    },
  });
  count.require('cargo test', status, count.total - seen);
}

/** Runs a program of Node that prints results in the Test Anything Protocol, and counts them. */
async function tap(count, what, args, write) {
  write(`[peerdma] ${what} …\n`);
  const seen = count.total;
  const start = ({ onLine }) => run(process.execPath, args, { write, onLine });
  const status = await countTap(count, start);
  count.require(what, status, count.total - seen);
}
