/**
 * Runs the program in this process and keeps what it writes.
 */
import { PassThrough } from 'node:stream';
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
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  if (tty) Object.assign(stdout, { isTTY: true });
  const status = await runProgram(args, commands, { stdout, stderr });
  const text = (stream: PassThrough): string => (stream.read() as Buffer | null)?.toString('utf8') ?? '';
  return { status, stdout: text(stdout), stderr: text(stderr) };
}
