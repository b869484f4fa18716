/**
 * The `peerdma` program: finds the command, parses its arguments, and reports errors.
 */
import { parseArgs } from 'node:util';
import { PeerDmaError, asError } from '../errors.ts';
import { type Command, type Terminal, UsageError } from './command.ts';
import { nearest } from './nearest.ts';
import { Output } from './output.ts';
import { packageVersion } from './version.ts';

/** A command whose module is loaded when it is needed. */
export interface CommandEntry {
  /** Description in one line. */
  readonly summary: string;
  load(): Promise<Command>;
}

/** Commands by name. */
export type Commands = Readonly<Record<string, CommandEntry>>;

/** The output streams of the program, such as those of `process`. */
export interface Streams {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
}

const HELP_FLAGS: readonly string[] = ['--help', '-h'];
const VERSION_FLAGS: readonly string[] = ['--version', '-v'];
const HELP: readonly string[] = ['help', ...HELP_FLAGS];
const VERSION: readonly string[] = ['version', ...VERSION_FLAGS];
/** Options of every command. */
const COMMON_OPTIONS = { help: { type: 'boolean', short: 'h' }, version: { type: 'boolean', short: 'v' } } as const;

/**
 * Runs a command line.
 *
 * @param args the command line without the name of the program
 * @returns the exit status: that of the command; 1 when standard output cannot be written; 2 for a malformed command
 *   line. A reader that stops early does not change it.
 */
export async function runProgram(args: readonly string[], commands: Commands, streams: Streams): Promise<number> {
  const terminal = { stdout: new Output(streams.stdout), stderr: new Output(streams.stderr) };
  const status = await runCommand(args, commands, terminal);
  const failure = await terminal.stdout.finish();
  if (failure !== undefined) terminal.stderr.line(`peerdma: standard output: write failed: ${failure.message}`);
  await terminal.stderr.finish();
  return failure === undefined ? status : Math.max(status, 1);
}

async function runCommand(args: readonly string[], commands: Commands, terminal: Terminal): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined) {
    terminal.stderr.lines(overview(commands));
    return 2;
  }
  if (HELP.includes(name)) return help(rest, commands, terminal);
  if (VERSION.includes(name)) {
    return rest.some((word) => HELP_FLAGS.includes(word)) ? help([], commands, terminal) : version(rest, terminal);
  }
  const entry = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (entry === undefined) return noSuchCommand(name, commands, terminal);
  try {
    const command = await entry.load();
    const { values, positionals } = parsed(rest, { ...command.options, ...COMMON_OPTIONS });
    if (values['help'] === true) return await help([name], commands, terminal);
    if (values['version'] === true) return version([], terminal);
    return await command.run({ values, positionals }, terminal);
  } catch (error) {
    return reported(name, error, terminal);
  }
}

async function help(words: readonly string[], commands: Commands, terminal: Terminal): Promise<number> {
  const [name, ...more] = words.filter((word) => !HELP_FLAGS.includes(word));
  if (more.length > 0) return malformed('peerdma help takes one command', terminal);
  const entry = name !== undefined && Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (entry !== undefined) {
    const { usage } = await entry.load();
    terminal.stdout.lines(`usage: ${usage.trimEnd()}`.split('\n'));
    return 0;
  }
  if (name !== undefined && ![...HELP, ...VERSION].includes(name)) return noSuchCommand(name, commands, terminal);
  terminal.stdout.lines(overview(commands));
  return 0;
}

function version(rest: readonly string[], terminal: Terminal): number {
  if (!rest.every((word) => VERSION_FLAGS.includes(word)))
    return malformed('peerdma --version takes nothing else', terminal);
  terminal.stdout.line(packageVersion());
  return 0;
}

function noSuchCommand(name: string, commands: Commands, terminal: Terminal): number {
  const meant = nearest(name, [...Object.keys(commands), 'help', 'version']);
  const hint = meant === undefined ? '' : ` Did you mean ${meant}?`;
  const status = malformed(`peerdma: unknown command ${JSON.stringify(name)}.${hint}`, terminal);
  if (meant === undefined) terminal.stderr.lines(overview(commands));
  return status;
}

function malformed(problem: string, { stderr }: Terminal): number {
  stderr.line(problem);
  return 2;
}

function reported(name: string, error: unknown, terminal: Terminal): number {
  if (error instanceof UsageError) {
    terminal.stderr.line(`peerdma ${name}: ${error.message}`);
    return malformed(`Run peerdma ${name} --help for its usage.`, terminal);
  }
  if (error instanceof PeerDmaError) terminal.stderr.line(`peerdma ${name}: ${error.code}: ${error.message}`);
  else terminal.stderr.lines(`peerdma ${name}: ${asError(error).stack}`.split('\n'));
  return 1;
}

function parsed(args: string[], options: Command['options']) {
  try {
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw new UsageError(asError(error).message);
  }
}

function overview(commands: Commands): string[] {
  const width = Math.max(0, ...Object.keys(commands).map(({ length }) => length));
  const lines = Object.entries(commands).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`);
  const more = 'Run peerdma help COMMAND for the usage of a command, and peerdma --version for the version.';
  return ['usage: peerdma COMMAND [ARGUMENT…]', '', ...lines, '', more];
}
