// Loads TypeScript as JavaScript, from a cache: each test file is a process of its own, and would compile the package
// anew.
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const TOP = fileURLToPath(new URL('../..', import.meta.url));
const CACHE = join(TOP, 'node_modules/.cache/typescript');
/** The oldest Node that runs the package: it has no `using`. */
const OPTIONS = {
  loader: 'ts',
  format: 'esm',
  target: 'node20.19',
  sourcemap: 'inline',
  sourcesContent: false,
  tsconfigRaw: { compilerOptions: { target: 'es2022', verbatimModuleSyntax: true } },
};
const COMPILER = readFileSync(join(TOP, 'node_modules/esbuild/package.json'));

/** The name of the package and its sub-paths, as the examples import them. They are the files of this checkout. */
const PACKAGE = /^peerdma(?:\/([\w-]+))?$/;

/** @type {import('node:module').ResolveHook} */
export async function resolve(specifier, context, nextResolve) {
  const [name, subPath = 'index'] = PACKAGE.exec(specifier) ?? [];
  return nextResolve(name === undefined ? specifier : new URL(`../../ts/${subPath}.ts`, import.meta.url).href, context);
}

/** @type {import('node:module').LoadHook} */
export async function load(url, context, nextLoad) {
  if (!url.startsWith('file:') || !url.endsWith('.ts')) return nextLoad(url, context);
  const path = fileURLToPath(url);
  const source = readFileSync(path);
  const cached = join(CACHE, `${key(path, source)}.js`);
  return { format: 'module', source: tryRead(cached) ?? (await compile(path, source, cached)), shortCircuit: true };
}

/** @param {string} path @param {Buffer} source */
function key(path, source) {
  const hash = createHash('sha256');
  for (const part of [path, source, COMPILER, JSON.stringify(OPTIONS)]) hash.update(`${part.length}:`).update(part);
  return hash.digest('hex').slice(0, 32);
}

/** @param {string} path @param {Buffer} source @param {string} cached */
async function compile(path, source, cached) {
  const { transformSync } = await import('esbuild');
  // Without a service process, whose descriptors a test would count as those of this process.
  const { code } = transformSync(source, { ...OPTIONS, sourcefile: path });
  try {
    mkdirSync(CACHE, { recursive: true });
    const partial = `${cached}.${process.pid}`;
    writeFileSync(partial, code);
    renameSync(partial, cached); // other processes never read a part of it
  } catch {
    // A read-only checkout has no cache.
  }
  return code;
}

/** @param {string} path */
function tryRead(path) {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}
