/**
 * The `peerdma` program: finds the command, parses its arguments, and tells what goes wrong.
 */
import { parseArgs } from 'node:util';
import { PeerDmaError } from '../errors.ts';
import { type Command, type Terminal, UsageError } from './command.ts';

/** The commands by their names. */
export type Commands = Readonly<Record<string, Command>>;

/**
 * Runs a command line, without the name of the program.
 *
 * @returns the exit status: the command's own; 2 for a command line that makes no sense
 */
export async function runProgram(args: readonly string[], commands: Commands, terminal: Terminal): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    const asked = name !== undefined;
    (asked ? terminal.stdout : terminal.stderr).write(overview(commands));
    return asked ? 0 : 2;
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) {
    terminal.stderr.write(`peerdma: there is no command ${name}\n${overview(commands)}`);
    return 2;
  }
  try {
    const options = { ...command.options, help: { type: 'boolean', short: 'h' } } as const;
    const { values, positionals } = parsed(rest, options);
    if (values['help'] === true) {
      terminal.stdout.write(`usage: ${command.usage.trimEnd()}\n`);
      return 0;
    }
    return await command.run({ values, positionals }, terminal);
  } catch (error) {
    if (error instanceof UsageError) {
      terminal.stderr.write(`peerdma ${name}: ${error.message}\n(peerdma ${name} --help says how)\n`);
      return 2;
    }
    if (!(error instanceof PeerDmaError)) throw error;
    terminal.stderr.write(`peerdma ${name}: ${error.code}: ${error.message}\n`);
    return 1;
  }
}

function parsed(args: string[], options: Command['options']) {
  try {
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function overview(commands: Commands): string {
  const width = Math.max(0, ...Object.keys(commands).map(({ length }) => length));
  const lines = Object.entries(commands).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}\n`);
  return `usage: peerdma COMMAND [ARGUMENT…]\n\n${lines.join('')}\npeerdma COMMAND --help says more.\n`;
}
