/**
 * Runs the program in this process and keeps what it writes.
 */
import { Writable } from 'node:stream';
import { COMMANDS } from '../../ts/cli/commands.ts';
import { type Commands, runProgram } from '../../ts/cli/run.ts';

export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * @param tty whether its output says that it is a terminal
 * @param commands those of the program, or others in their place
 */
export async function program(
  args: readonly string[],
  tty: boolean = false,
  commands: Commands = COMMANDS,
): Promise<Outcome> {
  const [stdout, stderr] = [new Kept(), new Kept()];
  if (tty) Object.assign(stdout, { isTTY: true });
  const status = await runProgram(args, commands, { stdout, stderr });
  return { status, stdout: stdout.text, stderr: stderr.text };
}

/** A stream that takes everything at once, as a file does. */
export class Kept extends Writable {
  readonly #pieces: Buffer[] = [];

  override _write(piece: Buffer, _encoding: string, done: () => void): void {
    this.#pieces.push(piece);
    done();
  }

  get text(): string {
    return Buffer.concat(this.#pieces).toString('utf8');
  }
}
