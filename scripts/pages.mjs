// Bundles the pages of `peerdma view` and `peerdma topology`: the program puts their scripts and styles into one file.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { top } from './command.mjs';

const BUNDLES = [
  { in: 'ts/web/view/main.ts', out: 'view' },
  { in: 'ts/web/view/page.css', out: 'view' },
  { in: 'ts/web/topology/main.ts', out: 'topology' },
  { in: 'ts/web/topology/page.css', out: 'topology' },
  { in: 'ts/web/topology/picture.css', out: 'picture' },
];

/**
 * Bundles the pages. Replaces only files that differ, each at once: tests in other processes may read them.
 *
 * @param {string} [out] folder for the bundles
 * @throws {Error} when a page uses a module of Node
 */
export async function bundlePages(out = 'dist/web') {
  const { build } = await import('esbuild'); // not installed before `npm ci`
  const { outputFiles, metafile } = await build({
    absWorkingDir: top,
    entryPoints: BUNDLES,
    outdir: resolve(top, out),
    bundle: true,
    minify: true,
    format: 'iife',
    target: 'es2022',
    legalComments: 'none',
    plugins: [withoutUnusedModules],
    write: false,
    metafile: true,
    logLevel: 'warning',
  });
  for (const [file, { imports }] of Object.entries(metafile.outputs)) {
    for (const { path } of imports) throw new Error(`the page ${basename(file)} uses ${path}, which a browser lacks`);
  }
  mkdirSync(resolve(top, out), { recursive: true });
  for (const { path, text } of outputFiles) {
    if (existsSync(path) && readFileSync(path, 'utf8') === text) continue;
    const unfinished = `${path}.${process.pid}`;
    writeFileSync(unfinished, text);
    renameSync(unfinished, path);
  }
}

/** Leaves out unused modules, those of Node included. The import of a module of the package has no effects. */
const withoutUnusedModules = {
  name: 'without-unused-modules',
  setup({ onResolve }) {
    onResolve({ filter: /^node:/ }, () => ({ external: true, sideEffects: false }));
    onResolve({ filter: /^\.\.?\/.*\.ts$/ }, ({ path, resolveDir }) => ({
      path: join(resolveDir, path),
      sideEffects: false,
    }));
  },
};
