/**
 * What a command of the `peerdma` program is, and what it has of the world.
 */
import type { ParseArgsConfig } from 'node:util';
import type { Output } from './output.ts';

/** Where a command writes to. */
export interface Terminal {
  readonly stdout: Output;
  readonly stderr: Output;
}

/** What was said on the command line. */
export interface Invocation {
  /** By the long names of {@link Command.options}. */
  readonly values: Readonly<Record<string, string | boolean | readonly (string | boolean)[] | undefined>>;
  readonly positionals: readonly string[];
}

/** One command, `peerdma NAME`. */
export interface Command {
  /** In a line. */
  readonly summary: string;
  /** All that is to be known, after `usage: `. */
  readonly usage: string;
  readonly options: NonNullable<ParseArgsConfig['options']>;
  /**
   * @returns the exit status: 0, or 1 where something is wrong with what was looked at
   * @throws {UsageError} which is exit status 2; a PeerDmaError is told and is 1
   */
  run(invocation: Invocation, terminal: Terminal): Promise<number>;
}

/** The command line makes no sense. The message says what would. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}
