// Sets up a checkout: installs the dependencies and builds the native core. Does nothing if their sources have not
// changed since the last set-up.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run, say, top } from './command.mjs';

const ADDON = 'ts/native/peerdma.linux-x64-gnu.node';

/** @throws {Error} when this version of Node is too old */
export function nodeVersion() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > 20 || (major === 20 && minor >= 19)) return;
  throw new Error(`this is Node ${process.versions.node}: install Node 20.19 or later`);
}

/** Installs the npm packages of package-lock.json. */
export async function dependencies() {
  await when('node_modules/.peerdma-stamp', ['package.json', 'package-lock.json'], 'node_modules/ava', async () => {
    say('installing dependencies (npm ci) …');
    await must('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
  });
}

/** Builds the native core for this machine. */
export async function nativeCore() {
  await when('target/.peerdma-stamp', ['Cargo.toml', 'Cargo.lock', 'crates'], ADDON, async () => {
    say('building the native core (cargo, about a minute the first time) …');
    await must('node_modules/.bin/napi', NAPI_BUILD, { quiet: true });
  });
}

/** Arguments of `napi` that build the native core for this machine. */
export const NAPI_BUILD = [
  'build',
  '--platform',
  '--release',
  '--manifest-path',
  'crates/node/Cargo.toml',
  '--package-json-path',
  'package.json',
  '--output-dir',
  'ts/native',
  '--no-js', // the loader is ts/native/binding.js
  '--dts',
  'binding.d.cts',
];

/**
 * Builds a product if it is missing or its sources have changed. All paths are relative to the checkout.
 *
 * @param {string} stamp path of a file that holds the fingerprint of the sources
 * @param {string[]} sources files and folders
 * @param {string} product path of the product
 * @param {() => Promise<void>} make builds the product
 */
export async function when(stamp, sources, product, make) {
  const [stampPath, productPath] = [stamp, product].map((path) => join(top, path));
  const key = fingerprint(sources);
  if (existsSync(productPath) && existsSync(stampPath) && readFileSync(stampPath, 'utf8') === key) return;
  await make();
  writeFileSync(stampPath, key);
}

function fingerprint(paths) {
  const hash = createHash('sha256');
  for (const path of paths) {
    for (const file of filesIn(path))
      hash
        .update(file)
        .update('\0')
        .update(readFileSync(join(top, file)));
  }
  return hash.digest('hex');
}

function filesIn(path) {
  const entries = existsSync(join(top, path)) ? tryList(path) : [];
  if (entries === undefined) return [path];
  return entries.sort().flatMap((entry) => filesIn(join(path, entry)));
}

/** Returns the names in a folder; `undefined` for a path that is not a folder. */
function tryList(path) {
  try {
    return readdirSync(join(top, path));
  } catch (error) {
    if (error.code === 'ENOTDIR') return undefined;
    throw error;
  }
}

export async function must(program, args, options) {
  const status = await run(program, args, options);
  if (status !== 0) throw new Error(`${[program, ...args].join(' ')} failed with status ${status}`);
}
