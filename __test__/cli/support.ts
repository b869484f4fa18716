/**
 * Runs the program in this process and records its output.
 */
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { COMMANDS } from '../../ts/cli/commands.ts';
import type { Command } from '../../ts/cli/command.ts';
import { doctorCommand } from '../../ts/cli/doctor/command.ts';
import { type CommandEntry, type Commands, runProgram } from '../../ts/cli/run.ts';
import { topologyCommand } from '../../ts/cli/topology/command.ts';
import { newIdsText } from '../../ts/cli/topology/pci-ids.ts';

export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A file of a few vendors and devices, instead of the system's. */
export const PCI_IDS: string = fileURLToPath(new URL('pci.ids', import.meta.url));

const idsText = newIdsText([PCI_IDS]);
const TEST_COMMANDS: Commands = {
  ...COMMANDS,
  doctor: { summary: '', ...COMMANDS['doctor'], load: async () => doctorCommand(idsText) },
  topology: { summary: '', ...COMMANDS['topology'], load: async () => topologyCommand(idsText) },
};

/**
 * @param tty whether the output is a terminal
 * @param commands the commands; by default those of the program, with the names of {@link PCI_IDS}
 */
export async function program(
  args: readonly string[],
  tty: boolean = false,
  commands: Commands = TEST_COMMANDS,
): Promise<Outcome> {
  const [stdout, stderr] = [new Kept(), new Kept()];
  if (tty) Object.assign(stdout, { isTTY: true });
  const status = await runProgram(args, commands, { stdout, stderr });
  return { status, stdout: stdout.text, stderr: stderr.text };
}

/** A command as the table of commands holds it. */
export function entryOf(command: Command): CommandEntry {
  return { summary: 'acts', load: async () => command };
}

/** A stream that accepts all text at once, like a file, and records it. */
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
