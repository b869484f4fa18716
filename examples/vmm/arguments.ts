/**
 * The command line of the VMM.
 */
import type { AddressRange, VfioBackendName } from 'peerdma';
import { pciAddress } from 'peerdma/host';
import { parseArgs } from 'node:util';
import { MAX_CPUS } from './acpi/madt.ts';
import { HOTPLUG_UNIT, MAX_RAM, hotplugRange } from './address-map.ts';
import { MAX_DEVICES } from './devices/pci-devices.ts';
import { SIMULATED_KINDS, type SimulatedKind } from './devices/simulated.ts';
import { UsageError } from './failures.ts';

export const USAGE = `npm run vmm -- --kernel bzImage [OPTION…]

Runs a Linux guest on KVM, with its serial console on this terminal. Ctrl-A x ends it.

  --kernel FILE      the kernel: a bzImage for x86-64
  --initrd FILE      its initial RAM file system
  --append TEXT      its command line; default: console=ttyS0
  --memory SIZE      RAM, such as 512M or 2G; default: 1G
  --hotplug SIZE     further RAM by virtio-mem, a multiple of 128M: Ctrl-A + and Ctrl-A - change it by 128M
  --cpus NUMBER      processors, from 1 to 255; default: 1
  --device BDF       assigns a PCI device that is bound to vfio-pci; may be repeated. BDF,clique=NUMBER approves
                     peer-to-peer DMA between GPUs of NVIDIA with the same number, 0 to 15
  --simulated KIND   adds a simulated PCI device, edu or memory; may be repeated
  --backend NAME     VFIO's: type1, iommufd, or auto; default: auto
  --journal FILE     records changes of guest memory there, for peerdma view
  --testbed          boots Linux in an emulated machine with devices, without KVM or privileges; alone
  --help             prints this text

The exit status is 0 when the guest powers off or Ctrl-A x ends it, 2 for an invalid command line, and 1 otherwise.`;

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
  /** Guest-physical addresses of the RAM that the guest gets while it runs. */
  readonly hotplug: AddressRange | undefined;
  readonly cpus: number;
  /** Without duplicates. */
  readonly devices: readonly DeviceArgument[];
  /** One for each simulated device. */
  readonly simulated: readonly SimulatedKind[];
  /** The interface of VFIO for physical devices. */
  readonly backend: 'auto' | VfioBackendName;
  /** Path of the journal. */
  readonly journal: string | undefined;
}

/** A physical device. */
export interface DeviceArgument {
  /** PCI address. */
  readonly bdf: string;
  /** Number of its clique, 0 to 15, if peer-to-peer DMA is approved. */
  readonly clique?: number;
}

const BACKENDS = ['auto', 'type1', 'iommufd'] as const;

const OPTIONS = {
  kernel: { type: 'string' },
  initrd: { type: 'string' },
  append: { type: 'string' },
  memory: { type: 'string' },
  hotplug: { type: 'string' },
  cpus: { type: 'string' },
  device: { type: 'string', multiple: true },
  simulated: { type: 'string', multiple: true },
  backend: { type: 'string' },
  journal: { type: 'string' },
  testbed: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

const SIZE = /^(\d{1,6})([MG])$/;
const GiB = 1n << 30n;
const UNITS: Readonly<Record<string, bigint>> = { M: 1n << 20n, G: GiB };

/**
 * Reads a command line.
 *
 * @param args the command line without the name of the program
 * @throws {UsageError} with one sentence that describes the problem and the remedy
 */
export function readArguments(args: readonly string[]): GuestArguments | 'help' {
  const values = parsed(args);
  if (values.help === true) return 'help';
  if (values.testbed === true) throw new UsageError('--testbed has no other option. Run npm run vmm -- --testbed');
  if (values.kernel === undefined) throw new UsageError('--kernel is missing. Name a bzImage');
  const devices = uniqueDevices((values.device ?? []).map(deviceOf));
  const simulated = (values.simulated ?? []).map((kind) => oneOf('simulated', SIMULATED_KINDS, kind));
  if (devices.length + simulated.length > MAX_DEVICES) {
    throw new UsageError(`--device and --simulated take up to ${MAX_DEVICES} devices. Give the guest fewer`);
  }
  const memory = sizeOf('memory', values.memory ?? '1G');
  return {
    kernel: pathOf('kernel', values.kernel),
    initrd: pathOf('initrd', values.initrd),
    append: values.append ?? 'console=ttyS0',
    memory,
    hotplug: values.hotplug === undefined ? undefined : hotplugOf(values.hotplug, memory),
    cpus: countOf(values.cpus ?? '1'),
    devices,
    simulated,
    backend: oneOf('backend', BACKENDS, values.backend ?? 'auto'),
    journal: pathOf('journal', values.journal),
  };
}

function parsed(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: OPTIONS }).values;
  } catch (error) {
    const [problem] = (error as Error).message.split(/\.?\n|\. /); // the first sentence
    throw new UsageError(`${problem}. See npm run vmm -- --help`);
  }
}

function pathOf<Path extends string | undefined>(option: string, path: Path): Path {
  if (path === '') throw new UsageError(`--${option} takes the path of a file, not ""`);
  return path;
}

function deviceOf(text: string): DeviceArgument {
  const [address = '', ...options] = text.split(',');
  const bdf = addressOf(address);
  if (options.length === 0) return { bdf };
  const [, digits = ''] = /^clique=(\d{1,2})$/.exec(options.join()) ?? [];
  const clique = Number(digits);
  if (digits !== '' && clique < 16) return { bdf, clique };
  throw new UsageError(`--device takes ${address},clique=NUMBER from 0 to 15, not ${JSON.stringify(text)}`);
}

/** Each device once. @throws {UsageError} for a device with different options */
function uniqueDevices(devices: readonly DeviceArgument[]): DeviceArgument[] {
  const byAddress = new Map<string, DeviceArgument>();
  for (const device of devices) {
    const { bdf, clique } = byAddress.get(device.bdf) ?? device;
    if (clique !== device.clique) {
      throw new UsageError(`--device names ${bdf} twice, with different options. Name it once`);
    }
    byAddress.set(bdf, device);
  }
  return [...byAddress.values()];
}

function addressOf(text: string): string {
  try {
    return pciAddress(text);
  } catch {
    throw new UsageError(`--device takes a PCI address such as 0000:01:00.0, not ${JSON.stringify(text)}`);
  }
}

function sizeOf(option: string, text: string): bigint {
  const [, count = '', unit = ''] = SIZE.exec(text) ?? [];
  const bytes = BigInt(count) * (UNITS[unit] ?? 0n);
  if (bytes > 0n && bytes <= MAX_RAM) return bytes;
  const form = `a size such as 512M or 2G, up to ${MAX_RAM / GiB}G`;
  throw new UsageError(`--${option} takes ${form}, not ${JSON.stringify(text)}`);
}

function hotplugOf(text: string, memory: bigint): AddressRange {
  const length = sizeOf('hotplug', text);
  if (length % HOTPLUG_UNIT !== 0n) throw new UsageError(`--hotplug takes a multiple of 128M, not ${text}`);
  const range = hotplugRange(memory, length);
  if (range !== undefined) return range;
  throw new UsageError(`--memory and --hotplug exceed the ${MAX_RAM / GiB}G below the devices. Give the guest less`);
}

function countOf(text: string): number {
  const count = /^\d{1,3}$/.test(text) ? Number(text) : 0;
  if (count >= 1 && count <= MAX_CPUS) return count;
  throw new UsageError(`--cpus takes a number from 1 to ${MAX_CPUS}, not ${JSON.stringify(text)}`);
}

/** Returns a value of an option that takes one of a few. */
function oneOf<Value extends string>(option: string, values: readonly Value[], text: string): Value {
  const value = values.find((one) => one === text);
  if (value !== undefined) return value;
  const all = new Intl.ListFormat('en', { type: 'disjunction' }).format(values);
  throw new UsageError(`--${option} takes ${all}, not ${JSON.stringify(text)}`);
}
