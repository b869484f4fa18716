/**
 * The interface of a command of the `peerdma` program.
 */
import type { ParseArgsConfig } from 'node:util';
import type { Output } from './output.ts';

/** The output streams of a command. */
export interface Terminal {
  readonly stdout: Output;
  readonly stderr: Output;
}

/** The parsed command line. */
export interface Invocation {
  /** Option values by the long names of {@link Command.options}. */
  readonly values: Readonly<Record<string, string | boolean | readonly (string | boolean)[] | undefined>>;
  readonly positionals: readonly string[];
}

/** One command, `peerdma NAME`. */
export interface Command {
  /** The complete help text, without the prefix `usage: `. */
  readonly usage: string;
  readonly options: NonNullable<ParseArgsConfig['options']>;
  /**
   * Runs the command.
   *
   * @returns the exit status: 0, or 1 if the command found a problem
   * @throws {UsageError} for exit status 2; {@link PeerDmaError} for exit status 1 with its message
   */
  run(invocation: Invocation, terminal: Terminal): Promise<number>;
}

/** An invalid command line. The message describes the valid form. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
