// Compiles the programs that run as JavaScript, and AVA. In a guest, finding and compiling some 500 modules takes
// longer than most tests.
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { NODE_TS, top } from './command.mjs';
import { must } from './setup.mjs';

const OUT = join(top, 'target/js');
/** Milliseconds. */
const DAY = 24 * 60 * 60 * 1000;
/** Scripts, and folders of scripts, that tests start as a process. Each is one file: it takes half as long to start. */
const PROGRAMS = ['ts/cli/main.ts', 'examples', 'examples/launcher', 'examples/vmm/main.ts', '__test__/vfio/programs'];
/** The folder with the entry points of the package, which the examples of the guides import. */
const PACKAGE = 'ts';
/** The examples of the guides. A test changes their code, so they are not bundled. */
const GUIDES = 'target/guides';
/** Libraries in C that tests load into a program (LD_PRELOAD). */
const LIBRARIES = '__test__/vfio/preload';
const GCC = ['-shared', '-fPIC', '-O2', '-Wall', '-Wextra', '-Werror'];
const AVA = {
  program: 'node_modules/ava/entrypoints/cli.mjs',
  worker: 'node_modules/ava/lib/worker/base.js',
  /** The module that tests import. */
  tests: 'node_modules/ava/entrypoints/main.mjs',
};

/** The command line of AVA for tests that {@link compileTests} has compiled. */
export const COMPILED_AVA = ['target/js/npm/ava/entrypoints/cli.js', '--tap', '--config', 'vfio.config.mjs'];

/**
 * Compiles tests of the guests and what they need to target/js.
 *
 * @param {readonly string[]} names names of files in `__test__/vfio`, such as `all` or `iommufd/files.test`
 */
export async function compileTests(names) {
  await must(process.execPath, [...NODE_TS, '__test__/guides/extract.ts']);
  const tests = names.map((name) => `__test__/vfio/${name}.ts`);
  await bundle([...PROGRAMS.flatMap(scriptsIn), ...tests, AVA.program]);
  await bundleTogether(scriptsIn(PACKAGE));
  await bundleTogether([AVA.worker, AVA.tests]);
  await esbuild(scriptsIn(GUIDES));
  await compileLibraries();
}

/** Compiles the libraries that tests load into a program, for the C library of this machine. */
async function compileLibraries() {
  const folder = join(OUT, LIBRARIES);
  mkdirSync(folder, { recursive: true });
  for (const name of readdirSync(join(top, LIBRARIES))) {
    const library = join(folder, name.replace(/\.c$/, '.so'));
    await must('gcc', [...GCC, '-o', library, `${LIBRARIES}/${name}`]);
  }
}

/**
 * Compiles a program to one file in target/js.
 *
 * @param {string} script its path in the checkout
 */
export async function compileProgram(script) {
  await bundle([script]);
}

/** Compiles the benchmarks to target/js. */
export async function compileBench() {
  await bundleTogether(scriptsIn('bench'));
}

/**
 * Bundles each script into one file, at the path of its source.
 *
 * @param {readonly string[]} entryPoints
 */
async function bundle(entryPoints) {
  await esbuild(entryPoints, BUNDLE);
}

/**
 * Bundles scripts, each at the path of its source. Code that several of them share is in chunks, so that a class is the
 * same object in all of them.
 *
 * @param {readonly string[]} entryPoints
 */
async function bundleTogether(entryPoints) {
  removeOldChunks();
  await esbuild(entryPoints, { ...BUNDLE, splitting: true, chunkNames: 'chunks/[name]-[hash]' });
}

/** Removes chunks that are older than a day. A guest that runs may read the others. */
function removeOldChunks() {
  const folder = join(OUT, 'chunks');
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const path = join(folder, name);
    if (Date.now() - statSync(path).mtimeMs > DAY) rmSync(path, { force: true });
  }
}

/**
 * @param {readonly string[]} scripts
 * @param {import('esbuild').BuildOptions} [options]
 */
async function esbuild(scripts, options) {
  const { build } = await import('esbuild'); // not installed before `npm ci`
  const entryPoints = scripts.map((path) => ({ in: path, out: outputOf(path) }));
  const target = { target: 'node20.19', tsconfig: 'tsconfig.bundle.json' };
  await build({ absWorkingDir: top, outdir: OUT, logLevel: 'warning', entryPoints, ...target, ...options });
}

/**
 * Returns the path of a compiled script in target/js, without its extension. Node searches packages in folders that are
 * named `node_modules`, so a package is in another one.
 *
 * @param {string} script a path in the checkout
 */
function outputOf(script) {
  return script.replace(/^node_modules\//, 'npm/').replace(/\.(ts|m?js)$/, '');
}

/** For packages that are CommonJS. */
const REQUIRE =
  "import { createRequire as newRequire } from 'node:module'; const require = newRequire(import.meta.url);";

/** @param {string} path a script, or a folder with scripts */
function scriptsIn(path) {
  if (path.endsWith('.ts')) return [path];
  return readdirSync(join(top, path))
    .filter((name) => name.endsWith('.ts'))
    .map((name) => `${path}/${name}`);
}

/** Gives each module of a bundle the URL that it would have if it were compiled by itself. */
const ownUrls = {
  name: 'own-urls',
  /** @param {import('esbuild').PluginBuild} build */
  setup(build) {
    build.onLoad({ filter: /\.(ts|m?js)$/ }, ({ path }) => {
      const source = readFileSync(path, 'utf8');
      if (!source.includes('import.meta.url')) return undefined;
      const url = pathToFileURL(join(OUT, `${outputOf(relative(top, path))}.js`)).href;
      return {
        contents: source.replaceAll('import.meta.url', JSON.stringify(url)),
        loader: path.endsWith('.ts') ? 'ts' : 'js',
        resolveDir: dirname(path),
      };
    });
  },
};

/** Makes tests import the compiled AVA: they and its worker require the same module. */
const compiledAva = {
  name: 'compiled-ava',
  /** @param {import('esbuild').PluginBuild} build */
  setup(build) {
    build.onResolve({ filter: /^ava$/ }, () => ({ path: join(OUT, `${outputOf(AVA.tests)}.js`), external: true }));
  },
};

/** @type {import('esbuild').BuildOptions} */
const BUNDLE = {
  bundle: true,
  format: 'esm',
  platform: 'node',
  keepNames: true,
  external: ['#native', 'esbuild', './watcher.js'], // the last one is AVA's watch mode, with large packages
  banner: { js: REQUIRE },
  plugins: [ownUrls, compiledAva],
};
