// The testbed's cache: folders named by a hash of their contents, each built once and never changed afterwards.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { TestbedError } from './errors.mjs';

/**
 * Returns the folder of the cache, outside of the checkout.
 * @returns {string}
 */
export function cacheRoot() {
  const { PEERDMA_CACHE, XDG_CACHE_HOME } = process.env;
  return resolve(PEERDMA_CACHE || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'peerdma'), 'testbed');
}

/**
 * Returns a short name for some content.
 * @param {...(string | Uint8Array)} parts
 * @returns {string} 16 hexadecimal digits
 */
export function digest(...parts) {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${part.length}:`).update(part);
  return hash.digest('hex').slice(0, 16);
}

/**
 * Returns the folder `name` of the cache; builds it if it does not exist, or if it has a problem.
 *
 * Builds in a separate folder, which is renamed when it is complete: an interrupted build leaves no folder that looks
 * complete, and of two concurrent builds the first one wins.
 *
 * @param {string} name the path below the cache's root
 * @param {(folder: string) => Promise<void>} build fills the given folder
 * @param {(folder: string) => Promise<string | undefined>} [check] returns the problem of a folder, if it has one
 * @returns {Promise<string>} the folder
 * @throws {TestbedError} when the folder has a problem after the build
 */
export async function cachedFolder(name, build, check = () => Promise.resolve(undefined)) {
  const folder = join(cacheRoot(), name);
  if (existsSync(folder)) {
    if ((await check(folder)) === undefined) return folder;
    await rm(folder, { recursive: true, force: true });
  }
  await mkdir(dirname(folder), { recursive: true });
  const partial = await mkdtemp(`${folder}.partial-`);
  try {
    await build(partial);
    const problem = await check(partial);
    if (problem !== undefined) throw new TestbedError(`${name}: the build is wrong: ${problem}`);
    await rename(partial, folder).catch((/** @type {NodeJS.ErrnoException} */ error) => {
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
  } finally {
    // The last processes of an interrupted compiler may still write there for a moment.
    await rm(partial, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
  return folder;
}

/**
 * Caches a small value that is slow to obtain. A value older than `days` is obtained again, and kept if that fails (a
 * machine without a network continues with its cached value).
 *
 * @template T
 * @param {string} name the file name below the cache's root
 * @param {number} days
 * @param {() => Promise<T>} ask
 * @param {(value: T) => boolean} [usable] whether a cached value can still be used
 * @returns {Promise<T>}
 */
export async function remembered(name, days, ask, usable = () => true) {
  const file = join(cacheRoot(), name);
  /** @type {{ at: number, value: T } | undefined} */
  let known;
  try {
    known = JSON.parse(await readFile(file, 'utf8'));
  } catch {
    // The value is missing or unreadable: obtains it.
  }
  if (known !== undefined && !usable(known.value)) known = undefined;
  if (known !== undefined && Date.now() - known.at < days * 86_400_000) return known.value;
  try {
    const value = await ask();
    await mkdir(dirname(file), { recursive: true });
    const partial = `${file}.${process.pid}`;
    await writeFile(partial, JSON.stringify({ at: Date.now(), value }));
    await rename(partial, file);
    return value;
  } catch (error) {
    if (known === undefined) throw error;
    return known.value;
  }
}
