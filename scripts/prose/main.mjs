// Checks the English of comments, messages and guides. `npm run lint` runs it; CONTRIBUTING.md describes its options.
import { readFileSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { say, top } from '../command.mjs';
import { checkProse } from './check.mjs';
import { proseFiles } from './files.mjs';
import { compareCounts, isAllowedUpdate, total } from './ratchet.mjs';

const LIST = 'scripts/prose/allowed.json';
const UPDATE = 'npm run lint -- --update';

const USAGE = `usage: npm run lint [-- FILE… | -- --update [--force]]`;

process.exitCode = main();

function main() {
  const { values, positionals } = readArguments() ?? {};
  if (values === undefined || (values.update ? positionals.length > 0 : values.force)) {
    say(USAGE);
    return 2;
  }
  if (values.update) return updateList(values.force);
  return positionals.length === 0 ? checkAll() : listFindings(positionals.map((path) => relative(top, resolve(path))));
}

/** Returns `undefined` for an unknown option. */
function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        update: { type: 'boolean', default: false },
        force: { type: 'boolean', default: false },
      },
    });
  } catch {
    return undefined;
  }
}

function checkAll() {
  const findings = findAll();
  const { worse, better } = compareCounts(readList(), countsOf(findings));
  for (const path of worse) print(path, findings.get(path));
  if (worse.length > 0) {
    say(
      `prose: ${worse.length} file(s) have more findings than ${LIST} allows. Rewrite what is new, or rewrite as many.`,
    );
  }
  if (better.length > 0) say(`prose: ${better.join(', ')}: fewer findings than ${LIST} allows. Run ${UPDATE}.`);
  return worse.length + better.length === 0 ? 0 : 1;
}

/** Prints the findings of some files, including those that the list allows. */
function listFindings(paths) {
  const unchecked = paths.filter((path) => !proseFiles(top).includes(path));
  if (unchecked.length > 0) {
    say(`prose: ${unchecked.join(', ')}: not a source file or guide of this checkout`);
    return 2;
  }
  const lists = paths.map((path) => [path, findingsOf(path)]);
  for (const [path, findings] of lists) print(path, findings);
  return lists.every(([, findings]) => findings.length === 0) ? 0 : 1;
}

function updateList(isForced) {
  const counts = countsOf(findAll());
  const allowed = readList();
  const [before, after] = [total(allowed), total(counts)];
  if (!isForced && !isAllowedUpdate(allowed, counts)) {
    for (const path of compareCounts(allowed, counts).worse) say(`prose: ${path}: more findings than before`);
    say(`prose: the update failed: ${after} findings, ${before} before. Rewrite what is new: npm run lint -- FILE…`);
    return 1;
  }
  const entries = Object.entries(counts).map(([path, count]) => `  ${JSON.stringify(path)}: ${count}`);
  writeFileSync(join(top, LIST), entries.length === 0 ? '{}\n' : `{\n${entries.join(',\n')}\n}\n`);
  say(`prose: ${after} findings, ${before} before`);
  return 0;
}

function findAll() {
  return new Map(proseFiles(top).map((path) => [path, findingsOf(path)]));
}

function findingsOf(path) {
  return checkProse(path, readFileSync(join(top, path), 'utf8'));
}

function countsOf(findings) {
  const counts = [...findings].map(([path, { length }]) => [path, length]);
  return Object.fromEntries(counts.filter(([, count]) => count > 0));
}

function readList() {
  return JSON.parse(readFileSync(join(top, LIST), 'utf8'));
}

function print(path, findings) {
  for (const { line, message } of findings) console.log(`${path}:${line}: ${message}`);
}
