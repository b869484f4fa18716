// Checks the English of comments, messages and guides: of the named files, or of all.
import { readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { say, top } from '../command.mjs';
import { checkProse } from './check.mjs';
import { proseFiles } from './files.mjs';

process.exitCode = main(process.argv.slice(2).map((path) => relative(top, resolve(path))));

/** @param {string[]} paths none for all files */
function main(paths) {
  const all = proseFiles(top);
  const unchecked = paths.filter((path) => !all.includes(path));
  if (unchecked.length > 0) {
    say(`prose: ${unchecked.join(', ')}: not a source file or guide of this checkout`);
    return 2;
  }
  let count = 0;
  for (const path of paths.length > 0 ? paths : all) {
    for (const { line, message } of checkProse(path, readFileSync(join(top, path), 'utf8'))) {
      console.log(`${path}:${line}: ${message}`);
      count++;
    }
  }
  return count === 0 ? 0 : 1;
}
