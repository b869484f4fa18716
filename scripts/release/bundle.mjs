// Bundles the package: one file for each sub-path, and chunks with the code that several of them share. So a class is
// the same object in all sub-paths, and an import loads few files.
import { cpSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { top } from '../command.mjs';

/**
 * Bundles the JavaScript of the package. Classes keep their names, which users see in traces.
 *
 * The program has a bundle of its own: its commands would split the code that the sub-paths share into many more
 * chunks, and each file costs about two milliseconds of an import.
 *
 * @param {string} out folder for the output, such as `dist`
 */
export async function bundlePackage(out) {
  const manifest = readManifest();
  const library = subPaths(manifest).map((one) => entryPoint(one.default));
  const program = Object.values(manifest.bin).map(entryPoint);
  await bundle(library, { outdir: out, chunkNames: 'chunks/[name]-[hash]', keepNames: true });
  await bundle(program, { outdir: out, chunkNames: 'cli/[name]-[hash]', minify: true });
  cpSync(join(top, 'node_modules/sorted-btree/LICENSE'), join(out, 'LICENSE-sorted-btree'));
}

async function bundle(entryPoints, options) {
  const { build } = await import('esbuild'); // not installed before `npm ci`
  await build({
    absWorkingDir: top,
    entryPoints,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    external: ['#native'],
    legalComments: 'none',
    logLevel: 'warning',
    ...options,
  });
}

/**
 * Removes the declarations that no sub-path refers to.
 *
 * @param {string} out folder with the declarations, such as `dist`
 */
export function removeUnusedDeclarations(out) {
  const used = new Set();
  const visit = (path) => {
    if (used.has(path)) return;
    used.add(path);
    for (const [, target] of readFileSync(path, 'utf8').matchAll(/(?:from |import\()'(\.[^']+)\.ts'/g)) {
      visit(join(dirname(path), `${target}.d.ts`));
    }
  };
  for (const { types } of subPaths(readManifest())) visit(join(out, inFolder(types)));
  for (const path of readdirSync(out, { recursive: true })) {
    if (path.endsWith('.d.ts') && !used.has(join(out, path))) rmSync(join(out, path));
  }
}

function readManifest() {
  return JSON.parse(readFileSync(join(top, 'package.json'), 'utf8'));
}

function subPaths({ exports }) {
  return Object.values(exports).filter((target) => typeof target === 'object');
}

/** Returns the source of a file of the package, such as `ts/host.ts` for `./dist/host.js`. */
function entryPoint(path) {
  const name = inFolder(path).replace(/\.js$/, '');
  return { in: `ts/${name}.ts`, out: name };
}

/** Returns the path of a file in the folder `dist` of the package. */
function inFolder(path) {
  return relative('dist', path);
}
