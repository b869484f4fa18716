/**
 * Loads Linux by the 64-bit boot protocol (Linux, Documentation/arch/x86/boot.rst).
 */
import { AddressRange, type GuestMemory } from 'peerdma';
import type { VirtualCpu } from 'peerdma/kvm';
import { bootParams } from './boot-params.ts';
import { SetupError } from '../failures.ts';
import type { BzImage } from './bzimage.ts';
import { BOOT_PARAMS, COMMAND_LINE, HIGH_MEMORY, LOW_MEMORY_END } from './layout.ts';
import { enterLongMode } from './long-mode.ts';

/** Options of {@link loadLinux}. */
export interface LinuxOptions {
  readonly kernel: BzImage;
  /** The contents of the initial RAM file system. Default: none */
  readonly initrd?: Uint8Array;
  readonly commandLine: string;
  /** The RAM of the guest, that below 1 MiB included. */
  readonly ram: readonly AddressRange[];
  /** Further ranges at which the guest must not place devices, such as the ECAM. Default: none */
  readonly reserved?: readonly AddressRange[];
  /** The guest-physical address of the root of the ACPI tables. */
  readonly rsdp: bigint;
}

/** The 64-bit entry point, from the start of the kernel. */
const ENTRY_OFFSET = 0x200n;
const PAGE = 0x1000n;

/**
 * Loads a kernel into guest memory, and sets the processor that starts it.
 *
 * @throws {SetupError} if RAM or the kernel has no place for a part. Guest memory is unchanged then
 */
export function loadLinux(
  memory: GuestMemory,
  cpu: Pick<VirtualCpu, 'setRegisters'>,
  { kernel, initrd = new Uint8Array(), commandLine, ram, reserved = [], rsdp }: LinuxOptions,
): void {
  const { header, code, address } = kernel;
  const place = AddressRange.of(address, kernel.size);
  if (address < HIGH_MEMORY || !ram.some((range) => range.contains(place))) {
    throw new SetupError(`the kernel requires RAM at ${place}. Give the guest more with --memory`);
  }
  const initrdPlace = initrd.length === 0 ? undefined : findInitrdPlace(BigInt(initrd.length), kernel, place, ram);
  const line = commandLineBytes(commandLine, kernel);
  const params = bootParams({ header, initrd: initrdPlace, ram, reserved, rsdp });
  memory.write(address, code);
  if (initrdPlace !== undefined) memory.write(initrdPlace.start, initrd);
  memory.write(COMMAND_LINE, line);
  memory.write(BOOT_PARAMS, params);
  enterLongMode(memory, cpu, { rip: address + ENTRY_OFFSET, rsi: BOOT_PARAMS });
}

/** Finds the highest place that the kernel accepts. */
function findInitrdPlace(
  length: bigint,
  { maxInitrdAddress }: BzImage,
  kernel: AddressRange,
  ram: readonly AddressRange[],
): AddressRange {
  const places = ram.flatMap((range) => {
    const end = range.end <= maxInitrdAddress ? range.end : maxInitrdAddress + 1n;
    const start = (end - length) & ~(PAGE - 1n);
    const first = range.contains(kernel) ? kernel.end : range.start;
    return start >= first && start >= HIGH_MEMORY ? [start] : [];
  });
  const [highest] = places.toSorted((a, b) => (a < b ? 1 : -1));
  if (highest !== undefined) return AddressRange.of(highest, length);
  throw new SetupError(
    `no RAM beside the kernel has ${length} bytes for the initrd. Give the guest more with --memory`,
  );
}

/** The command line with its terminating zero. */
function commandLineBytes(text: string, { maxCommandLine }: BzImage): Uint8Array {
  const bytes = new TextEncoder().encode(`${text}\0`);
  const max = Math.min(maxCommandLine, Number(LOW_MEMORY_END - COMMAND_LINE) - 1);
  if (bytes.length - 1 <= max) return bytes;
  throw new SetupError(
    `the command line has ${bytes.length - 1} bytes, and the kernel accepts ${max}. Shorten --append`,
  );
}
