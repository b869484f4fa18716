// A kernel that no Debian package has as it is needed: built from Debian's source package, small, all of it built in.
import { createReadStream, existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { withSuite } from './apt.mjs';
import { cacheRoot, cachedFolder, digest, remembered } from './cache.mjs';
import { TestbedError } from './errors.mjs';
import { alone } from './lock.mjs';
import { capture, findProgram, logged } from './process.mjs';
import { say } from './say.mjs';

/** What a build runs, and the Debian package of each; .ci/run installs them. */
const TOOLS = /** @type {const} */ ({
  gcc: 'gcc',
  ld: 'binutils',
  make: 'make',
  flex: 'flex',
  bison: 'bison',
  bc: 'bc',
  xz: 'xz-utils',
});
/** What objtool, which a build makes for itself, is compiled with. */
const HEADER = { path: '/usr/include/gelf.h', from: 'libelf-dev' };

/** Two slow processors take some minutes; this is for what hangs. */
const BUILD_SECONDS = 3600;
const PROGRESS_MILLISECONDS = 60_000;

/** On these the compiler is stopped and what there is removed, instead of leaving both behind. */
const SIGNALS = /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']);

/** @typedef {import("./kernels.mjs").Kernel} Kernel */
/** @typedef {{ series: string, title: string, source: string, version: string, suite: string, options: string }} Recipe */

/**
 * Gives a kernel built from Debian's `linux-source-SERIES` with `kernel-SERIES.config`, from the cache or else building
 * it now. Two processes that want it at once build it once.
 *
 * @param {string} series `7.3`
 * @param {string} suite where Debian has its source
 * @returns {Promise<Kernel>}
 * @throws {TestbedError} when the source can't be had, a tool is missing, or the build fails; then nothing is left of it
 *   but its log
 */
export async function builtKernel(series, suite) {
  const source = `linux-source-${series}`;
  const options = await readFile(new URL(`kernel-${series}.config`, import.meta.url), 'utf8');
  const compiler = await capture('gcc', ['--version'], { seconds: 30, needs: 'apt-get install gcc' });
  const code = await readFile(new URL(import.meta.url));
  /** @param {string} version */
  const keyOf = (version) => digest(source, version, options, compiler, code);
  /** @param {string} version */
  const folderOf = (version) => `kernel/${series}-${keyOf(version)}`;
  const version = await remembered(
    `kernel-${series}.json`,
    7,
    () => newest(source, suite),
    (known) => existsSync(join(cacheRoot(), folderOf(known))),
  );
  const title = `Linux ${series} (built from ${source} ${version})`;
  const folder = join(cacheRoot(), folderOf(version));
  if (!existsSync(folder)) {
    const lock = { seconds: BUILD_SECONDS, onWait: () => say(`${title}: another process is building it; waiting …`) };
    await alone(join(cacheRoot(), `kernel/${series}.lock`), lock, async () => {
      await removeLeftovers(dirname(folder), `${series}-`);
      await cachedFolder(folderOf(version), (built) =>
        build(built, { series, title, source, version, suite, options }),
      );
    });
  }
  return { name: series, title, image: join(folder, 'bzImage'), modules: null, key: keyOf(version) };
}

/**
 * @param {string} source name of the package
 * @param {string} suite
 * @returns {Promise<string>} its version
 */
async function newest(source, suite) {
  try {
    return await withSuite(suite, (apt) => apt.version(source));
  } catch (error) {
    if (!(error instanceof TestbedError)) throw error;
    throw new TestbedError(
      `this kernel is built from ${source} of Debian's ${suite}, which can't be had: ${error.message}`,
    );
  }
}

/**
 * Removes what builds left that were killed: gigabytes each. Only for the holder of the lock, with which nobody builds.
 *
 * @param {string} folder
 * @param {string} prefix
 */
async function removeLeftovers(folder, prefix) {
  for (const name of await readdir(folder))
    if (name.startsWith(prefix) && name.includes('.partial-')) await rm(join(folder, name), { recursive: true });
}

/**
 * Fetches, configures and compiles.
 *
 * @param {string} folder gets `bzImage` and `config`
 * @param {Recipe} recipe
 */
async function build(folder, { series, title, source, version, suite, options }) {
  requireTools(title);
  const begun = performance.now();
  const log = join(cacheRoot(), `kernel/${series}-build.log`);
  await writeFile(log, `${title}\n`);
  say(`${title}: not in the cache; building it, which takes some minutes (log: ${log}) …`);

  const interrupt = new AbortController();
  const onSignal = () => interrupt.abort();
  for (const name of SIGNALS) process.on(name, onSignal);
  const [tree, unpacked] = [join(folder, 'tree'), join(folder, 'unpacked')];
  const progress = setInterval(() => void tell(title, log, begun), PROGRESS_MILLISECONDS);
  /** @param {string} program @param {string[]} args */
  const run = (program, args) =>
    logged(program, args, {
      seconds: BUILD_SECONDS,
      cwd: tree,
      env: environment(folder),
      log,
      signal: interrupt.signal,
    });
  try {
    await withSuite(suite, (apt) => apt.unpack(source, version, unpacked));
    await mkdir(tree);
    const archive = join(unpacked, `usr/src/${source}.tar.xz`);
    await run('tar', ['-xJf', archive, '--strip-components=1', '--no-same-owner']);
    await rm(unpacked, { recursive: true });
    await writeFile(join(folder, 'options'), options);
    await run('make', ['allnoconfig']);
    const config = await readFile(join(tree, '.config'), 'utf8');
    const lost = lostOptions(options, config);
    if (lost.length > 0)
      throw new TestbedError(
        `${title}: kernel-${series}.config asks for what this source does not give: ${lost.join(', ')}`,
      );
    await run('make', [`-j${availableParallelism()}`, 'bzImage']);
    await copyFile(join(tree, 'arch/x86/boot/bzImage'), join(folder, 'bzImage'));
    await copyFile(join(tree, '.config'), join(folder, 'config'));
    await rm(tree, { recursive: true });
    await rm(join(folder, 'options'));
  } finally {
    clearInterval(progress);
    for (const name of SIGNALS) process.off(name, onSignal);
  }
  say(`${title}: built in ${duration(begun)}`);
}

/**
 * @param {string} title
 */
function requireTools(title) {
  /** @type {Map<string, string>} */
  const missing = new Map();
  for (const [tool, from] of Object.entries(TOOLS)) if (findProgram(tool) === undefined) missing.set(tool, from);
  if (!existsSync(HEADER.path)) missing.set(basename(HEADER.path), HEADER.from);
  if (missing.size === 0) return;
  const packages = [...missing.values()].join(' ');
  throw new TestbedError(
    `${title}: not in the cache, and building it needs ${[...missing.keys()].join(', ')}: apt-get install ${packages} (.ci/run does it)`,
  );
}

/**
 * What make sees of the environment: nothing that could change what comes out, no name of this machine in the image.
 * @param {string} folder
 * @returns {Record<string, string>}
 */
function environment(folder) {
  return {
    PATH: process.env.PATH ?? '',
    LC_ALL: 'C.UTF-8',
    TMPDIR: folder,
    KCONFIG_ALLCONFIG: join(folder, 'options'),
    KBUILD_BUILD_USER: 'peerdma',
    KBUILD_BUILD_HOST: 'testbed',
    // Set though empty: where a repository is around the cache, its state would be added to the version.
    LOCALVERSION: '',
  };
}

/**
 * The options that were asked for and did not come to be: renamed since, or something they depend on is off. Kconfig
 * drops such options without a word.
 *
 * @param {string} options the lines asked for, with comments
 * @param {string} config the resulting `.config`
 * @returns {string[]} lines of `options`
 */
export function lostOptions(options, config) {
  const given = new Set(config.split('\n'));
  return options.split('\n').filter((line) => line.startsWith('CONFIG_') && !given.has(line));
}

/**
 * @param {string} title
 * @param {string} log
 * @param {number} begun
 */
async function tell(title, log, begun) {
  let compiled = 0;
  for await (const line of createInterface({ input: createReadStream(log) })) if (line.startsWith('  CC ')) compiled++;
  say(`${title}: ${compiled} files compiled after ${duration(begun)} …`);
}

/**
 * @param {number} begun
 */
function duration(begun) {
  const seconds = Math.round((performance.now() - begun) / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
