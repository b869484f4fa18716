// Compiles the programs that run as JavaScript: in a guest, finding and compiling some 500 modules takes longer than
// most tests.
import { existsSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { NODE_TS, top } from './command.mjs';
import { must } from './setup.mjs';

const OUT = join(top, 'target/js');
/** Milliseconds. */
const DAY = 24 * 60 * 60 * 1000;
/** Scripts, and folders of scripts, that tests import by a computed path or start as a process. */
const PROGRAMS = ['ts', 'ts/cli/main.ts', 'examples', 'examples/vmm/main.ts', '__test__/vfio/programs'];
/** The examples of the guides. A test changes their code, so they are not bundled. */
const GUIDES = 'target/guides';

/**
 * Compiles tests of the guests and what they need to target/js.
 *
 * @param {readonly string[]} names names of files in `__test__/vfio`, such as `all` or `iommufd/files.test`
 */
export async function compileTests(names) {
  await must(process.execPath, [...NODE_TS, '__test__/guides/extract.ts']);
  await bundle([...PROGRAMS.flatMap(scriptsIn), ...names.map((name) => `__test__/vfio/${name}.ts`)]);
  await esbuild({ entryPoints: scriptsIn(GUIDES) });
}

/** Compiles the benchmarks to target/js. */
export async function compileBench() {
  await bundle(scriptsIn('bench'));
}

/**
 * Bundles scripts, each at the path of its source. Code that several of them share is in chunks, so that a class is the
 * same object in all of them.
 *
 * @param {readonly string[]} entryPoints
 */
async function bundle(entryPoints) {
  removeOldChunks();
  await esbuild({
    entryPoints,
    chunkNames: 'chunks/[name]-[hash]',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    keepNames: true,
    external: ['#native', 'ava', 'esbuild'],
    banner: { js: REQUIRE },
    plugins: [ownUrls],
  });
}

/** Removes chunks that are older than a day. A guest that runs may read the others. */
function removeOldChunks() {
  const folder = join(OUT, 'chunks');
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const path = join(folder, name);
    if (Date.now() - statSync(path).mtimeMs > DAY) rmSync(path, { force: true });
  }
}

/** @param {import('esbuild').BuildOptions} options */
async function esbuild(options) {
  const { build } = await import('esbuild'); // not installed before `npm ci`
  const target = { target: 'node20.19', tsconfig: 'tsconfig.bundle.json' };
  await build({ absWorkingDir: top, outdir: OUT, outbase: top, logLevel: 'warning', ...target, ...options });
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
    build.onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const source = readFileSync(path, 'utf8');
      if (!source.includes('import.meta.url')) return undefined;
      const url = pathToFileURL(join(OUT, relative(top, path)).replace(/\.ts$/, '.js')).href;
      return {
        contents: source.replaceAll('import.meta.url', JSON.stringify(url)),
        loader: 'ts',
        resolveDir: dirname(path),
      };
    });
  },
};
