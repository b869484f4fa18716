// The tasks of package.json.
import { isDeepStrictEqual } from 'node:util';
import { run, say, top } from './command.mjs';
import { compileBench, compileProgram } from './compile.mjs';
import { ALL, BUILD, prerequisites, printVersions } from './prerequisites.mjs';
import { ONE_PROCESSOR } from './guests.mjs';
import { bundlePages } from './pages.mjs';
import { compilePackage, lintPackage, mainPackage } from './release/packages.mjs';
import { dependencies, must, nativeCore, nodeVersion } from './setup.mjs';
import { allTests, guestTest, namedTests, unitTests, vfioTests } from './tests.mjs';

/** Checks the doc comments; with a folder, makes the API reference there. */
const REFERENCE = ['scripts/reference/main.mjs'];

/** Checks the English of comments, messages and guides. */
const PROSE = ['scripts/prose/main.mjs'];

/** The example VMM with devices of the testbed. */
const VMM_IN_TESTBED = 'examples/vmm/testbed/main.ts';

const bin = (name) => `node_modules/.bin/${name}`;

const tasks = {
  demo: (args) => script('ts/cli/main.ts', ['demo', ...args]),
  vmm: (args) => (isDeepStrictEqual(args, ['--testbed']) ? vmmInTestbed() : script('examples/vmm/main.ts', args)),
  bench: async (args) => {
    await built();
    await compileBench();
    return run(process.execPath, ['target/js/bench/run.js', ...args]); // as users run it, not as tests do
  },
  test: async (args) => {
    await prerequisites(args.length > 0 ? BUILD : ALL);
    await built();
    return args.length > 0 ? namedTests(args) : allTests();
  },
  'test:unit': async (args) => {
    await prerequisites(BUILD);
    await built();
    return unitTests(args);
  },
  ci: async () => {
    await prerequisites(ALL);
    printVersions();
    await built();
    return allTests({ lint: true });
  },
  'test:vfio': async (args) => {
    await built();
    return vfioTests(args);
  },
  'test:guest': async (args) => {
    await built();
    return guestTest(args);
  },
  testbed: (args) => run(process.execPath, ['testbed/cli.mjs', ...args]),
  build: async () => {
    await built();
    await compilePackage();
    return 0;
  },
  reference: async () => {
    await built();
    await compilePackage();
    await must(process.execPath, [...REFERENCE, 'target/reference']);
    say('the API reference is target/reference/index.html');
    return 0;
  },
  lint: async (args) => {
    nodeVersion();
    await dependencies();
    if (args.length > 0) return run(process.execPath, [...PROSE, ...args]);
    // The native core and clippy leave a processor idle for most of their time. Formatting needs neither; types need
    // the declarations of the native core, which its build writes.
    await Promise.all([nativeCore(), lintText()]);
    await Promise.all([lintRust(), lintTypes()]);
    say('lint, format, prose, types, clippy, package: clean');
    return 0;
  },
};

async function lintText() {
  await must(bin('oxlint'), ['--deny-warnings']);
  await must(bin('prettier'), ['--check', '--log-level=warn', '.']);
  await must('cargo', ['fmt', '--all', '--check']);
  await must(process.execPath, PROSE);
}

async function lintRust() {
  await must('cargo', ['clippy', '--quiet', '--workspace', '--all-targets', '--', '-D', 'warnings']);
}

/** Types, the API reference and the package. */
async function lintTypes() {
  for (const project of ['tsconfig.json', 'testbed', 'ts/web']) await must(bin('tsc'), ['-p', project]);
  await compilePackage();
  await must(bin('tsc'), ['-p', 'scripts/consumer']);
  await must(process.execPath, REFERENCE);
  await lintPackage(await mainPackage('target/packages/lint'));
}

/** @returns {Promise<number>} the exit status */
export async function runTask(name, args) {
  const task = tasks[name];
  if (task === undefined) {
    say(`no task ${name}; there are ${Object.keys(tasks).join(', ')}`);
    return 2;
  }
  try {
    process.chdir(top);
    return await task(args);
  } catch (error) {
    say(error.message);
    return 1;
  }
}

async function built() {
  nodeVersion();
  await dependencies();
  await nativeCore();
  await bundlePages();
}

async function vmmInTestbed() {
  await built();
  await compileProgram(VMM_IN_TESTBED);
  const testbed = ['testbed/cli.mjs', '--kernel', '7.3', ...ONE_PROCESSOR];
  return run(process.execPath, [...testbed, 'node', `target/js/${VMM_IN_TESTBED.replace(/ts$/, 'js')}`]);
}

/** Runs a program in this process, which gets its signals: a child would survive some of them. */
async function script(path, args) {
  await built();
  await import('./typescript/register.mjs');
  process.argv = [process.execPath, path, ...args];
  await import(`../${path}`);
  return process.exitCode ?? 0;
}
