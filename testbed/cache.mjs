// The testbed's cache: folders named by what they hold, each built once, beside each other and never changed afterwards.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

/**
 * The cache's folder, outside the checkout.
 * @returns {string}
 */
export function cacheRoot() {
  const { PEERDMA_CACHE, XDG_CACHE_HOME } = process.env;
  return resolve(PEERDMA_CACHE || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'peerdma'), 'testbed');
}

/**
 * A short name for some content.
 * @param {...(string | Uint8Array)} parts
 * @returns {string} 16 hexadecimal digits
 */
export function digest(...parts) {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${part.length}:`).update(part);
  return hash.digest('hex').slice(0, 16);
}

/**
 * Gives the folder `name` of the cache, building it if it is not there. Built in a folder of its own that is renamed
 * when complete: an interrupted build leaves nothing that looks finished, and of two builders at once the first wins.
 *
 * @param {string} name path below the cache's root
 * @param {(folder: string) => Promise<void>} build fills the folder it is given
 * @returns {Promise<string>} the folder
 */
export async function cachedFolder(name, build) {
  const folder = join(cacheRoot(), name);
  if (existsSync(folder)) return folder;
  await mkdir(dirname(folder), { recursive: true });
  const partial = await mkdtemp(`${folder}.partial-`);
  try {
    await build(partial);
    await rename(partial, folder).catch((/** @type {NodeJS.ErrnoException} */ error) => {
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
  } finally {
    // Of a compiler that was interrupted the last processes may still write there for a moment.
    await rm(partial, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
  return folder;
}

/**
 * Remembers a small answer that was costly to get. When it is older than `days` it is asked for again, and kept as it
 * is if that fails (a machine off the network goes on with what it has).
 *
 * @template T
 * @param {string} name file name below the cache's root
 * @param {number} days
 * @param {() => Promise<T>} ask
 * @param {(value: T) => boolean} [usable] whether a remembered answer still will do
 * @returns {Promise<T>}
 */
export async function remembered(name, days, ask, usable = () => true) {
  const file = join(cacheRoot(), name);
  /** @type {{ at: number, value: T } | undefined} */
  let known;
  try {
    known = JSON.parse(await readFile(file, 'utf8'));
  } catch {
    // Not there, or not readable as what it should be: ask.
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
