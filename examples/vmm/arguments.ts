/**
 * The command line of the VMM.
 */
import { parseArgs } from 'node:util';
import { deviceArguments, fileOption } from '../../ts/cli/arguments.ts';
import { UsageError } from '../../ts/cli/command.ts';
import { asError } from '../../ts/errors.ts';
import { SIMULATED_KINDS, type SimulatedKind } from './devices/simulated.ts';

export const USAGE = `npm run vmm -- --kernel bzImage [OPTION…]

Runs a Linux guest on KVM, with its serial console on this terminal. Ctrl-A x ends it.

  --kernel FILE      the kernel: a bzImage for x86-64
  --initrd FILE      its initial RAM file system
  --append TEXT      its command line; default: console=ttyS0
  --memory SIZE      RAM, such as 512M or 2G; default: 1G
  --cpus NUMBER      processors, from 1 to 255; default: 1
  --device BDF       assigns a PCI device that is bound to vfio-pci; may be repeated
  --simulated KIND   adds a simulated PCI device, edu or memory; may be repeated
  --journal FILE     records changes of guest memory there, for peerdma view
  --help             prints this text`;

/** The guest that a command line describes. */
export interface GuestArguments {
  /** Path of the kernel. */
  readonly kernel: string;
  /** Path of the initial RAM file system. */
  readonly initrd: string | undefined;
  /** The command line of the kernel. */
  readonly append: string;
  /** Bytes of RAM, a multiple of 1 MiB. */
  readonly memory: bigint;
  readonly cpus: number;
  /** PCI addresses, without duplicates. */
  readonly devices: readonly string[];
  /** One for each simulated device. */
  readonly simulated: readonly SimulatedKind[];
  /** Path of the journal. */
  readonly journal: string | undefined;
}

const OPTIONS = {
  kernel: { type: 'string' },
  initrd: { type: 'string' },
  append: { type: 'string' },
  memory: { type: 'string' },
  cpus: { type: 'string' },
  device: { type: 'string', multiple: true },
  simulated: { type: 'string', multiple: true },
  journal: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

const SIZE = /^(\d{1,6})([MG])$/;
const UNITS: Readonly<Record<string, bigint>> = { M: 1n << 20n, G: 1n << 30n };
/** Processors have APIC IDs of 8 bits, and 255 is all of them (Intel SDM volume 3, 10.6.2.1). */
const MOST_CPUS = 255;

/**
 * Reads a command line.
 *
 * @param args the command line without the name of the program
 * @throws {UsageError} with one sentence that describes the problem and the remedy
 */
export function readArguments(args: readonly string[]): GuestArguments | 'help' {
  const values = parsed(args);
  if (values.help === true) return 'help';
  const kernel = fileOption({ values }, 'kernel');
  if (kernel === undefined) throw new UsageError('--kernel is missing: name a bzImage');
  return {
    kernel,
    initrd: fileOption({ values }, 'initrd'),
    append: values.append ?? 'console=ttyS0',
    memory: sizeOf(values.memory ?? '1G'),
    cpus: countOf(values.cpus ?? '1'),
    devices: deviceArguments(values.device ?? []),
    simulated: (values.simulated ?? []).map(kindOf),
    journal: fileOption({ values }, 'journal'),
  };
}

function parsed(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: OPTIONS }).values;
  } catch (error) {
    const [problem] = asError(error).message.split(/\.?\n|\. /); // the first sentence
    throw new UsageError(`${problem}: see npm run vmm -- --help`);
  }
}

function sizeOf(text: string): bigint {
  const [, count = '', unit = ''] = SIZE.exec(text) ?? [];
  const bytes = BigInt(count) * (UNITS[unit] ?? 0n);
  if (bytes > 0n) return bytes;
  throw new UsageError(`--memory takes a size such as 512M or 2G, not ${JSON.stringify(text)}`);
}

function countOf(text: string): number {
  const count = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (count >= 1 && count <= MOST_CPUS) return count;
  throw new UsageError(`--cpus takes a number from 1 to ${MOST_CPUS}, not ${JSON.stringify(text)}`);
}

function kindOf(text: string): SimulatedKind {
  const kind = SIMULATED_KINDS.find((one) => one === text);
  if (kind !== undefined) return kind;
  throw new UsageError(`--simulated takes ${SIMULATED_KINDS.join(' or ')}, not ${JSON.stringify(text)}`);
}
