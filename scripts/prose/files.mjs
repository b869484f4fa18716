// The files whose English is checked.
import { readdirSync } from 'node:fs';
import { extname, join } from 'node:path';

const CODE = new Set(['.ts', '.mjs', '.js', '.rs']);
const SKIPPED_FOLDERS = new Set(['node_modules', 'target', 'dist']);

/**
 * Lists source files, the guides in `docs/` and the Markdown files at the top.
 *
 * @param {string} top the checkout
 * @returns {string[]} paths below `top`, sorted
 */
export function proseFiles(top) {
  return filesBelow(top, '').filter(isChecked).sort();
}

function isChecked(path) {
  return extname(path) === '.md' ? /^(docs\/)?[^/]+$/.test(path) : CODE.has(extname(path));
}

function filesBelow(top, folder) {
  return readdirSync(join(top, folder), { withFileTypes: true }).flatMap((entry) => {
    if (entry.name.startsWith('.') || SKIPPED_FOLDERS.has(entry.name)) return [];
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesBelow(top, path) : [path];
  });
}
