// A kernel that is built here from Debian's source package: small and without modules, with options that no Debian
// package has.
import { createReadStream, existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { withSuite } from './apt.mjs';
import { cacheRoot, cachedFolder, digest, remembered } from './cache.mjs';
import { TestbedError } from './errors.mjs';
import { textOf } from './console.mjs';
import { imageProblem } from './image.mjs';
import { alone } from './lock.mjs';
import { capture, findProgram, logged } from './process.mjs';
import { say } from './say.mjs';

/** The programs of a build, and the Debian package of each. scripts/prerequisites.mjs has them, too. */
const TOOLS = /** @type {const} */ ({
  gcc: 'gcc',
  ld: 'binutils',
  make: 'make',
  flex: 'flex',
  bison: 'bison',
  bc: 'bc',
  xz: 'xz-utils',
});
/** A header of objtool, which a build compiles for itself. */
const HEADER = { path: '/usr/include/gelf.h', from: 'libelf-dev' };

/** A limit for a build that hangs. Two idle processors take five minutes. */
const BUILD_SECONDS = 3600;
const PROGRESS_MILLISECONDS = 60_000;

/** Signals that stop the compiler and remove the files of the build. */
const SIGNALS = /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']);

/** @typedef {import("./kernels.mjs").Kernel} Kernel */
/**
 * @typedef {object} Recipe
 * @property {string} series
 * @property {string} title
 * @property {string} source
 * @property {string} version
 * @property {string} suite
 * @property {string[]} options
 */

/** Part of the key. Increase it when a build makes other files of the same inputs. */
const RECIPE = '1';
/** The targets of make. */
const CONFIGURE = 'allnoconfig';
const BUILD = 'bzImage';
/** The environment of make, which has no name of this machine. */
const ENVIRONMENT = {
  LC_ALL: 'C.UTF-8',
  KBUILD_BUILD_USER: 'peerdma',
  KBUILD_BUILD_HOST: 'testbed',
  // Set although it is empty: otherwise the version would have the state of a repository around the cache.
  LOCALVERSION: '',
};

/**
 * Returns a kernel built from Debian's `linux-source-SERIES` with `kernel-SERIES.config`.
 *
 * Builds it if the cache does not have it. If two processes need it at the same time, one builds and the other waits.
 *
 * @param {string} series `7.3`
 * @param {string} suite the Debian suite of its source
 * @returns {Promise<Kernel>}
 * @throws {TestbedError} when the source is unavailable, a program is missing, or the build fails; only the log of a
 *   failed build remains
 */
export async function builtKernel(series, suite) {
  const source = `linux-source-${series}`;
  const options = optionLines(await readFile(new URL(`kernel-${series}.config`, import.meta.url), 'utf8'));
  const compiler = await capture('gcc', ['--version'], { seconds: 30, needs: 'apt-get install gcc' });
  /** @param {string} version */
  const keyOf = (version) => buildKey({ source, version, options, compiler });
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
  /** @param {string} candidate */
  const check = (candidate) => buildProblem(candidate, series, options);
  if ((await check(folder)) !== undefined) {
    const lock = { seconds: BUILD_SECONDS, onWait: () => say(`${title}: another process is building it; waiting …`) };
    await alone(join(cacheRoot(), `kernel/${series}.lock`), lock, async () => {
      await removeLeftovers(dirname(folder), `${series}-`);
      await cachedFolder(
        folderOf(version),
        (built) => build(built, { series, title, source, version, suite, options }),
        check,
      );
    });
  }
  return { name: series, title, image: join(folder, 'bzImage'), modules: null, key: keyOf(version) };
}

/**
 * Returns the key of a build in the cache: a hash of all that decides about the kernel.
 *
 * @param {{ source: string, version: string, options: readonly string[], compiler: string }} inputs
 * @returns {string}
 */
export function buildKey({ source, version, options, compiler }) {
  return digest(RECIPE, source, version, options.join('\n'), compiler, CONFIGURE, BUILD, JSON.stringify(ENVIRONMENT));
}

/**
 * Returns the lines of a configuration that set an option, without comments.
 *
 * @param {string} text
 * @returns {string[]}
 */
export function optionLines(text) {
  return text.split('\n').filter((line) => line.startsWith('CONFIG_'));
}

/**
 * Returns the problem of a folder of the cache: a missing or truncated image, or other options.
 *
 * @param {string} folder
 * @param {string} series
 * @param {readonly string[]} options
 * @returns {Promise<string | undefined>} undefined for a folder without a problem
 */
export async function buildProblem(folder, series, options) {
  const config = await textOf(join(folder, 'config'));
  const lost = lostOptions(options, config);
  if (lost.length > 0) return `its configuration lacks ${lost.join(', ')}`;
  return imageProblem(join(folder, 'bzImage'), series);
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
      `${source}: reading its version from Debian's ${suite} failed: ${error.message}. Connect to a Debian mirror.`,
    );
  }
}

/**
 * Removes the files of builds that were killed, gigabytes each. The caller holds the lock, so that no build runs.
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
  say(`${title}: building it takes some minutes (log: ${log}) …`);

  const interrupt = new AbortController();
  const onSignal = () => interrupt.abort();
  for (const name of SIGNALS) process.on(name, onSignal);
  const [tree, unpacked] = [join(folder, 'tree'), join(folder, 'unpacked')];
  const progress = setInterval(() => void reportProgress(title, log, begun), PROGRESS_MILLISECONDS);
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
    await writeFile(join(folder, 'options'), options.map((line) => `${line}\n`).join(''));
    await run('make', [CONFIGURE]);
    const config = await readFile(join(tree, '.config'), 'utf8');
    const lost = lostOptions(options, config);
    if (lost.length > 0)
      throw new TestbedError(
        `${title}: configuration failed: missing options or dependencies: ${lost.join(', ')}. Correct kernel-${series}.config.`,
      );
    await run('make', [`-j${availableParallelism()}`, BUILD]);
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
    `${title}: building it failed: ${[...missing.keys()].join(', ')} missing. Install: apt-get install ${packages}`,
  );
}

/**
 * Returns the whole environment of make.
 * @param {string} folder
 * @returns {Record<string, string>}
 */
function environment(folder) {
  return {
    ...ENVIRONMENT,
    PATH: process.env.PATH ?? '',
    TMPDIR: folder,
    KCONFIG_ALLCONFIG: join(folder, 'options'),
  };
}

/**
 * Returns the options that a configuration lacks. Kconfig silently drops an option that was renamed, or whose
 * dependencies are off.
 *
 * @param {readonly string[]} options
 * @param {string} config the resulting `.config`
 * @returns {string[]} lines of `options`
 */
export function lostOptions(options, config) {
  const given = new Set(config.split('\n'));
  return options.filter((line) => !given.has(line));
}

/**
 * @param {string} title
 * @param {string} log
 * @param {number} begun
 */
async function reportProgress(title, log, begun) {
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
