/**
 * `npm test` on a machine that lacks programs.
 */
import test, { type ExecutionContext } from 'ava';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { scratchFolder } from '../support/scratch.ts';
import { ALL, BUILD, missing, top } from './scripts.ts';

/** A folder for the PATH, with Node and programs that fail. */
function programs(t: ExecutionContext, ...names: readonly string[]): string {
  const folder = scratchFolder(t);
  symlinkSync(process.execPath, join(folder, 'node'));
  for (const name of names) program(folder, name, 'exit 1');
  return folder;
}

function program(folder: string, name: string, script: string): void {
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, name), 0o755);
}

/** Runs a task as root or as another user, with a PATH of one folder. */
function task(name: string, path: string, user: 'root' | 'other'): { status: number | null; lines: string[] } {
  const script = `process.getuid = () => ${user === 'root' ? 0 : 1000};`;
  const preload = join(path, 'user.mjs');
  writeFileSync(preload, script);
  const run = fileURLToPath(new URL('scripts/run.mjs', top));
  const { status, stderr } = spawnSync(process.execPath, [`--import=${preload}`, run, name], {
    encoding: 'utf8',
    env: { PATH: path },
    timeout: 60_000,
  });
  return { status, lines: stderr.trimEnd().split('\n') };
}

const required = ALL.filter(({ skipped }) => skipped === undefined);
const programNames = ALL.flatMap(({ program: name }) => name ?? []);
const packagesOf = (names: readonly (string | undefined)[]) =>
  ALL.filter(({ program: name }) => names.includes(name)).map(({ from }) => from);

test('finds programs on the PATH and files below the root', (t) => {
  const path = programs(t, ...programNames);
  const root = scratchFolder(t);
  t.deepEqual(
    missing(ALL, { path, root }),
    ALL.filter(({ file }) => file !== undefined),
  );
  for (const { file } of ALL) {
    if (file === undefined) continue;
    mkdirSync(dirname(join(root, file)), { recursive: true });
    writeFileSync(join(root, file), '');
  }
  t.deepEqual(missing(ALL, { path, root }), []);
  t.deepEqual(
    missing(BUILD, { path: scratchFolder(t), root }).map(({ from }) => from),
    ['gcc'],
  );
});

test('names the apt-get command and npm run test:unit in the first lines', (t) => {
  const path = programs(t, 'cargo', 'gcc');
  const { status, lines } = task('test', path, 'other');
  t.is(status, 1);
  const packages = packagesOf(programNames.filter((name) => name !== 'gcc'));
  t.regex(lines[0] ?? '', new RegExp(`^\\[peerdma\\] missing: .*: apt-get install .*${packages[0]}`));
  for (const name of packages) t.true(lines[0]?.split(' ').includes(name), name);
  t.is(lines[1], 'The tests that do not require them run with: npm run test:unit');
  t.is(lines.length, 2);
});

test('requires a compiler for the unit tests, too', (t) => {
  const { status, lines } = task('test:unit', programs(t, 'cargo'), 'other');
  t.is(status, 1);
  t.deepEqual(lines, ['[peerdma] missing: gcc. Install the packages as root: apt-get install gcc']);
});

test('names Rust if it is missing', (t) => {
  const { status, lines } = task('test:unit', programs(t, 'gcc'), 'root');
  t.is(status, 1);
  t.deepEqual(lines, ['[peerdma] missing: cargo. Install Rust 1.88 or later (https://rustup.rs).']);
});

test('installs the packages as root', (t) => {
  const path = programs(t, 'cargo', 'gcc', 'rustup');
  const log = join(path, 'log');
  program(path, 'apt-get', `echo "apt-get $*" >>${log}; exit 1`);
  program(path, 'timeout', 'shift; exec "$@"');
  const { status, lines } = task('test', path, 'root');
  t.is(status, 1);
  const lacking = missing(ALL, { path, root: '/' }).map(({ from }) => from);
  const packages = lacking.join(' ');
  t.true(lacking.includes('qemu-system-x86'));
  const calls = readFileSync(log, 'utf8').trimEnd().split('\n');
  t.is(calls.at(-2), 'apt-get -q update');
  t.is(calls.at(-1), `apt-get install -q -y --no-install-recommends ${packages}`);
  t.is(lines.at(-1), `[peerdma] apt-get install ${packages} failed`);
});

test('every required program or file has a package', (t) => {
  t.true(
    required.every(({ program: name, file, from }) => (name === undefined) !== (file === undefined) && from !== ''),
  );
});
