// The platforms that have packages: the folders of npm/.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/** Rust targets by the names of platforms in napi. */
const TARGETS = {
  'linux-x64-gnu': 'x86_64-unknown-linux-gnu',
  'linux-x64-musl': 'x86_64-unknown-linux-musl',
  'linux-arm64-gnu': 'aarch64-unknown-linux-gnu',
};

/**
 * @typedef {object} Platform
 * @property {string} name such as `linux-x64-gnu`
 * @property {string} target its Rust target
 * @property {string} folder of its package, relative to the checkout
 * @property {Record<string, any>} manifest its package.json
 * @property {string} binary file name of the addon
 */

/**
 * Lists the platforms.
 *
 * @param {string} top path of the checkout
 * @returns {Platform[]}
 */
export function platforms(top) {
  return readdirSync(join(top, 'npm')).map((name) => {
    const folder = join('npm', name);
    const target = TARGETS[name];
    if (target === undefined) throw new Error(`${folder}: no Rust target is known for it`);
    const manifest = JSON.parse(readFileSync(join(top, folder, 'package.json'), 'utf8'));
    return { name, target, folder, manifest, binary: `peerdma.${name}.node` };
  });
}
