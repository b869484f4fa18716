/**
 * What the pages say on a command line is there: commands of `peerdma` with options that they take, tasks of npm, files that
 * Node is given, and shell that a shell can read. What a command does has tests of its own.
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

/** The programs behind tasks that take options, and where those are declared for `parseArgs`. */
const DECLARED: Readonly<Record<string, string>> = {
  demo: 'ts/cli/demo/command.ts',
  lint: 'scripts/prose/main.mjs',
  release: 'scripts/release.mjs',
  testbed: 'testbed/cli.mjs',
  'test:guest': 'testbed/cli.mjs',
};

test('every command of peerdma that is named is there, and takes what it is given', async (t) => {
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
    'commands of which no page tells',
  );
});

test('every task of npm that is named is there, and takes what it is given', (t) => {
  const tasks = commands.filter(({ words: [program, verb] }) => program === 'npm' && /^(run|test)$/.test(verb ?? ''));
  t.true(tasks.length > 0);
  for (const { where, words } of tasks) {
    const name = words[1] === 'run' ? (words[2] ?? '') : 'test';
    t.true(Object.hasOwn(scripts, name), `${where}: there is no npm run ${name}`);
    requireFlags(t, where, words.slice(words.indexOf('--') + 1), DECLARED[name]);
  }
});

test('every file that Node is given is there', (t) => {
  for (const { where, words } of commands.filter(({ words: [program] }) => program === 'node')) {
    const at = words.findIndex((word, index) => index > 0 && !word.startsWith('-'));
    const file = words[at] ?? '';
    if (!/\.(mjs|ts)$/.test(file)) continue; // `node -e …`
    t.true(existsSync(new URL(file, top)), `${where}: ${file}`);
    if (file === DECLARED['testbed']) requireFlags(t, where, words.slice(at + 1), file);
  }
});

test('every block of shell is one', (t) => {
  const shell = pages.flatMap(({ blocks }) => blocks).filter(({ language }) => language === 'sh');
  t.true(shell.length > 0);
  for (const { page, line, code } of shell) {
    const { status, stderr } = spawnSync('sh', ['-n'], { input: code, encoding: 'utf8' });
    t.is(status, 0, `${page}:${line}: ${stderr}`);
  }
});

test('files of the checkout that the text names are there', (t) => {
  const folders = /^(?:ts|docs|examples|scripts|testbed|__test__|crates|fuzz|npm|bench)\/[\w./-]*$/;
  for (const { path, prose } of pages) {
    for (const name of codeSpans(prose).filter((span) => folders.test(span))) {
      t.true(existsSync(new URL(name, top)), `${path}: ${name}`);
    }
  }
});

/** Long options up to where a program of the user begins. */
function requireFlags(t: ExecutionContext, where: string, args: readonly string[], file: string | undefined): void {
  const end = args.indexOf('--');
  const flags = args.slice(0, end < 0 ? args.length : end).filter((word) => word.startsWith('--'));
  if (flags.length === 0) return;
  const source = file === undefined ? '' : readFileSync(new URL(file, top), 'utf8');
  for (const flag of flags) {
    const declared = new RegExp(`^\\s*'?${flag.slice(2)}'?: \\{ type: |[{,] ${flag.slice(2)}: \\{ type: `, 'm');
    t.regex(source, declared, `${where}: ${flag} is no option of ${file ?? 'that'}`);
  }
}
