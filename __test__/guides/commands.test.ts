/**
 * The command lines of the pages are valid. They are commands of `peerdma` with their options, tasks of npm, files for
 * Node, and blocks of shell. The effects of the commands have tests of their own.
 */
import test, { type ExecutionContext } from 'ava';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { COMMANDS } from '../../ts/cli/commands.ts';
import { codeSpans, commandLines } from './support/commands.ts';
import { readPages, top } from './support/pages.ts';

const pages = readPages();
const commands = commandLines(pages);
const { scripts }: { scripts: Record<string, string> } = JSON.parse(readFileSync(new URL('package.json', top), 'utf8'));

/** The programs behind tasks with options, and the files that declare these for `parseArgs`. */
const DECLARED: Readonly<Record<string, string>> = {
  demo: 'ts/cli/demo/command.ts',
  lint: 'scripts/prose/main.mjs',
  release: 'scripts/release.mjs',
  testbed: 'testbed/cli.mjs',
  'test:guest': 'testbed/cli.mjs',
  vmm: 'examples/vmm/arguments.ts',
};

test('every command of peerdma in the pages exists, with its options', async (t) => {
  const named = commands.filter(({ words: [program, name] }) => program === 'peerdma' && name !== undefined);
  const wrong: string[] = [];
  for (const { where, words } of named) {
    const [, name = '', ...args] = words;
    const command = Object.hasOwn(COMMANDS, name) ? await COMMANDS[name]?.load() : undefined;
    if (command === undefined) {
      wrong.push(`${where}: there is no command ${name}`);
      continue;
    }
    try {
      parseArgs({ args, options: { ...command.options, help: { type: 'boolean' } }, allowPositionals: true });
    } catch (error) {
      wrong.push(`${where}: peerdma ${name}: ${String(error)}`);
    }
  }
  t.deepEqual(wrong, []);
  const told = new Set(named.map(({ words }) => words[1]));
  t.deepEqual(
    Object.keys(COMMANDS).filter((name) => !told.has(name)),
    [],
    'commands that no page mentions',
  );
});

test('every task of npm in the pages exists, with its options', (t) => {
  const tasks = commands.filter(({ words: [program, verb] }) => program === 'npm' && /^(run|test)$/.test(verb ?? ''));
  t.true(tasks.length > 0);
  for (const { where, words } of tasks) {
    const name = words[1] === 'run' ? (words[2] ?? '') : 'test';
    t.true(Object.hasOwn(scripts, name), `${where}: there is no npm run ${name}`);
    requireFlags(t, where, words.slice(words.indexOf('--') + 1), DECLARED[name]);
  }
});

test('every file for Node in the pages exists', (t) => {
  for (const { where, words } of commands.filter(({ words: [program] }) => program === 'node')) {
    const at = words.findIndex((word, index) => index > 0 && !word.startsWith('-'));
    const file = words[at] ?? '';
    if (!/\.(mjs|ts)$/.test(file)) continue; // `node -e …`
    t.true(existsSync(new URL(file, top)), `${where}: ${file}`);
    if (file === DECLARED['testbed']) requireFlags(t, where, words.slice(at + 1), file);
  }
});

test('every block of shell is valid', (t) => {
  const shell = pages.flatMap(({ blocks }) => blocks).filter(({ language }) => language === 'sh');
  t.true(shell.length > 0);
  for (const { page, line, code } of shell) {
    const { status, stderr } = spawnSync('sh', ['-n'], { input: code, encoding: 'utf8' });
    t.is(status, 0, `${page}:${line}: ${stderr}`);
  }
});

test('files of the checkout in the text exist', (t) => {
  const folders = /^(?:ts|docs|examples|scripts|testbed|__test__|crates|fuzz|npm|bench)\/[\w./-]*$/;
  for (const { path, prose } of pages) {
    for (const name of codeSpans(prose).filter((span) => folders.test(span))) {
      t.true(existsSync(new URL(name, top)), `${path}: ${name}`);
    }
  }
});

/** Long options before those of a user's program. */
function requireFlags(t: ExecutionContext, where: string, args: readonly string[], file: string | undefined): void {
  const end = args.indexOf('--');
  const flags = args.slice(0, end < 0 ? args.length : end).filter((word) => word.startsWith('--'));
  if (flags.length === 0) return;
  const source = file === undefined ? '' : readFileSync(new URL(file, top), 'utf8');
  for (const flag of flags) {
    const declared = new RegExp(`^\\s*'?${flag.slice(2)}'?: \\{ type: |[{,] ${flag.slice(2)}: \\{ type: `, 'm');
    t.regex(source, declared, `${where}: ${flag} is not an option of ${file ?? 'that'}`);
  }
}
