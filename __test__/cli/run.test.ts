/**
 * The conventions that all commands share: versions, help, exit statuses, failing streams.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { COMMANDS } from '../../ts/cli/commands.ts';
import type { Command } from '../../ts/cli/command.ts';
import { type Commands, runProgram } from '../../ts/cli/run.ts';
import { PeerDmaError } from '../../ts/errors.ts';
import { GuestMemory } from '../../ts/index.ts';
import { describeMachine } from '../support/sysfs/describe.ts';
import { expandTree, machine } from '../support/sysfs/expand.ts';
import { scratchFolder } from '../support/scratch.ts';
import { Kept, entryOf, program } from './support.ts';

const top = new URL('../../', import.meta.url);
const { version } = JSON.parse(readFileSync(new URL('package.json', top), 'utf8')) as { version: string };

/** A command that prints a text, or calls a function. */
function command(run: Command['run']): Commands {
  return { act: entryOf({ usage: 'peerdma act', options: {}, run }) };
}

test('accepts --help and --version before and after a command, and prefers --help', async (t) => {
  const names = Object.keys(COMMANDS);
  const [helpFlags, versionFlags] = [
    ['--help', '-h'],
    ['--version', '-v'],
  ] as const;
  const printed = async (args: readonly string[]): Promise<string> => {
    const { status, stdout, stderr } = await program(args);
    t.deepEqual([status, stderr], [0, ''], args.join(' '));
    return stdout;
  };
  const overview = await printed(['help']);
  for (const name of names) t.regex(overview, new RegExp(`^  ${name} `, 'm'));
  const expected = new Map<string, string>();
  const expect = (text: string, ...lines: string[][]): void => {
    for (const line of lines) expected.set(line.join(' '), text);
  };
  for (const help of ['help', ...helpFlags]) {
    expect(overview, [help], ...['help', 'version', ...helpFlags, ...versionFlags].map((word) => [help, word]));
  }
  for (const versions of ['version', ...versionFlags]) {
    expect(`${version}\n`, [versions], ...versionFlags.map((word) => [versions, word]));
    expect(
      overview,
      ...helpFlags.flatMap((word) => [[versions, word], ...versionFlags.map((v) => [versions, v, word])]),
    );
  }
  for (const name of names) {
    const usage = await printed(['help', name]);
    t.true(usage.startsWith(`usage: peerdma ${name} `), usage);
    expect(`${version}\n`, ...versionFlags.map((word) => [name, word]));
    for (const flag of helpFlags) {
      expect(usage, [name, flag], [flag, name], ['help', flag, name], ['help', name, flag], [name, flag, flag]);
      expect(
        usage,
        ...versionFlags.flatMap((word) => [
          [name, word, flag],
          [name, flag, word],
        ]),
      );
    }
  }
  for (const [line, text] of expected) t.is(await printed(line.split(' ')), text, line);
});

test('suggests the nearest command for an unknown one', async (t) => {
  for (const args of [['topolgy'], ['topolgy', '--json'], ['help', 'topolgy'], ['--topology']]) {
    const { status, stdout, stderr } = await program(args);
    t.is(status, 2);
    t.is(stdout, '');
    t.regex(stderr, /^peerdma: unknown command "-{0,2}topol\w*gy"\. Did you mean topology\?$/m);
  }
  const { stderr } = await program(['frobnicate']);
  t.notRegex(stderr, /Did you mean/);
  t.regex(stderr, /^ {2}topology /m, 'all of them instead');
  t.is((await program(['constructor'])).status, 2);
});

test('exits with status 2 for a malformed command line, and does nothing', async (t) => {
  const folder = scratchFolder(t);
  const root = expandTree(t, describeMachine(machine('laptop')));
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  const file = join(folder, 'memory.json');
  writeFileSync(file, JSON.stringify(memory.inspect()));
  const svg = join(folder, 'a.svg');
  const malformed = [
    [],
    ['help', 'topology', 'doctor'],
    ['help', 'topology', '--json'],
    ['help', '--json'],
    ['version', 'topology'],
    ['--version', '--json'],
    ['topology', '--version=1'],
    ['topology', '--help', '--nonsense'],
    ['topology', 'nvme0'],
    ['topology', '--sysfs', root, '04:00.0', '04:00'],
    ['topology', '--sysfs', root, '--svg', svg, 'nonsense'],
    ['topology', '--sysfs', root, '--svg', svg, '--html', svg],
    ['topology', '--sysfs', root, '--svg', '-', '--html', '-'],
    ['topology', '--sysfs', root, '--svg', '-', '--json'],
    ['topology', '--sysfs', root, '--html', '-', '--json'],
    ['topology', '--svg', ''],
    ['topology', '--json=yes'],
    ['doctor', 'nvme0'],
    ['doctor', '--sysfs', root, 'nonsense'],
    ['bind', 'nvme0'],
    ['unbind', '--dry-run', '01:00.0', 'x'],
    ['explain', file],
    ['explain', file, '99999999999999999999'],
    ['explain', file, '0x10000000000000000'],
    ['explain', file, '-1'],
    ['explain', file, '1e3'],
    ['explain', file, '0x0', 'A', 'B'],
    ['view', ''],
    ['view', file, '--output', ''],
    ['view', file, '--output', file],
    ['view', file, '--output', join(folder, '.', 'x', '..', 'memory.json')],
  ];
  for (const args of malformed) {
    const { status, stdout, stderr } = await program(args);
    t.is(status, 2, args.join(' '));
    t.is(stdout, '', args.join(' '));
    t.regex(stderr, /^(?:peerdma[: ]|usage: )/, args.join(' '));
    t.notRegex(stderr, /^\s+at /m);
  }
  t.deepEqual(readdirSync(folder), ['memory.json'], 'nothing is written');
});

test('- names standard output in every option that names an output file', async (t) => {
  const folder = scratchFolder(t);
  const root = expandTree(t, describeMachine(machine('laptop')));
  const cwd = process.cwd();
  const saved = async (option: string): Promise<string> => {
    const file = join(folder, option);
    t.is((await program(['topology', '--sysfs', root, option, file])).status, 0);
    return readFileSync(file, 'utf8');
  };
  for (const option of ['--svg', '--html']) {
    const { status, stdout } = await program(['topology', '--sysfs', root, option, '-']);
    t.is(status, 0);
    t.is(stdout, await saved(option));
  }
  t.false(readdirSync(cwd).includes('-'));
});

test('a reader that stops early does not change the exit status', async (t) => {
  for (const code of ['EPIPE', 'ERR_STREAM_DESTROYED']) {
    let taken = 0;
    const stdout = new Writable({
      write(chunk: Buffer, _encoding, done) {
        taken += chunk.length;
        done(Object.assign(new Error('nobody reads'), { code }));
      },
    });
    const stderr = new Writable({ write: (_chunk, _encoding, done) => done(new Error('no more is written')) });
    const acts = command(async (_, { stdout: out }) => {
      for (let count = 0; count < 1000; count++) out.line('line');
      return 1;
    });
    t.is(await runProgram(['act'], acts, { stdout, stderr }), 1, "the command's own status");
    t.true(taken > 0);
  }
});

test('reports in one line that standard output cannot be written', async (t) => {
  const stderr = new Kept();
  const full = new Writable({
    write: (_chunk, _encoding, done) => done(Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC' })),
  });
  const acts = command(async (_, { stdout }) => {
    stdout.lines(['one', 'two']);
    stdout.line('three');
    return 0;
  });
  t.is(await runProgram(['act'], acts, { stdout: full, stderr }), 1);
  t.regex(stderr.text, /^peerdma: standard output: write failed: ENOSPC[^\n]*\n$/);
});

test('handles a closed pipe and a full disk as a process', (t) => {
  const root = expandTree(t, describeMachine(machine('gpu-server')));
  const main = fileURLToPath(new URL('ts/cli/main.ts', top));
  const shell = (command: string) =>
    spawnSync('bash', ['-c', command, 'bash', process.execPath, main, root], { encoding: 'utf8', cwd: top });
  const run = '"$1" --import=./scripts/typescript/register.mjs "$2" topology --all --sysfs "$3"';
  const closed = shell(`${run} --json | true; exit "\${PIPESTATUS[0]}"`);
  t.deepEqual([closed.stderr, closed.status], ['', 0]);
  const full = shell(`${run} > /dev/full`);
  t.regex(full.stderr, /^peerdma: standard output: write failed: ENOSPC[^\n]*\n$/);
  t.is(full.status, 1);
});

test('prints a PeerDmaError in one line with exit status 1, and any other error with its escaped trace', async (t) => {
  const ours = await program(
    ['act'],
    false,
    command(async () => {
      throw new PeerDmaError('ERR_SYSTEM', 'no\u001b[2J\nroom');
    }),
  );
  t.deepEqual(ours, { status: 1, stdout: '', stderr: 'peerdma act: ERR_SYSTEM: no?[2J?room\n' });
  const other = await program(
    ['act'],
    false,
    command(async () => {
      throw new TypeError('a fault\u001b[2J of the program');
    }),
  );
  t.is(other.status, 1);
  t.regex(other.stderr, /^peerdma act: TypeError: a fault\?\[2J of the program\n {4}at /);
});

test('reports a --sysfs that is not a folder of PCI devices in one line', async (t) => {
  const file = join(scratchFolder(t), 'file');
  writeFileSync(file, '');
  for (const sysfs of [file, '/nowhere', '/etc/hostname/x', 'a\u0000b']) {
    const { status, stdout, stderr } = await program(['topology', '--sysfs', sysfs]);
    t.is(status, 1, sysfs);
    t.is(stdout, '');
    t.regex(stderr, /^peerdma topology: ERR_INVALID_ARGUMENT: [^\n]*\n$/);
  }
});
