/**
 * The `resource` file of a function: where the host has its BARs and, for a bridge, its windows. A line for each has first
 * address, last address and flags (Linux, Documentation/PCI/sysfs-pci.rst); flags are those of include/linux/ioport.h.
 */
import type { SysFiles } from './sys-files.ts';

const IO = 0x100n;
const MEMORY = 0x200n;
const PREFETCH = 0x2000n;
const MEMORY_64 = 0x10_0000n;
const DISABLED = 0x1000_0000n;
const UNSET = 0x2000_0000n;

/** Lines that are BARs; the ROM follows. */
const BARS = 6;
const ROM = 6;
/** Lines of a bridge: behind BARs, ROM and, where the kernel has SR-IOV, six of virtual functions. Four of them are windows. */
const WINDOW_COUNT = 4;
const IOV_BARS = 6;

/** A base address register of a function, or its ROM. */
export interface BarResource {
  /** VFIO's index: 0 to 5, 6 for the ROM. */
  readonly index: number;
  /** `memory64` takes two registers. */
  readonly kind: 'io' | 'memory32' | 'memory64' | 'rom';
  /** Where the host has it: a physical address of the CPU; `undefined` where it has no address. */
  readonly address: bigint | undefined;
  /** Bytes. */
  readonly length: bigint;
  /** Whether reading has no side effects, so that it can lie in a prefetchable window. */
  readonly prefetchable: boolean;
  /** All that the kernel says of it. */
  readonly flags: bigint;
}

/** Addresses that a bridge forwards from above it to below. */
export interface BridgeWindow {
  /** What is forwarded: I/O ports, or memory, which is prefetchable or not. */
  readonly kind: 'io' | 'memory' | 'prefetchable';
  /** A physical address of the CPU. */
  readonly address: bigint;
  /** Bytes. */
  readonly length: bigint;
}

/** @internal */
export interface Resources {
  readonly bars: readonly BarResource[];
  readonly windows: readonly BridgeWindow[];
}

interface Line {
  readonly index: number;
  readonly start: bigint;
  readonly length: bigint;
  readonly flags: bigint;
}

/** Reads the file of a function in `folder`. @internal */
export function readResources(files: SysFiles, folder: string, isBridge: boolean): Resources {
  const path = `${folder}/resource`;
  const text = files.text(path);
  if (text === undefined) return { bars: [], windows: [] };
  const rows = text.split('\n');
  const lines = rows.flatMap((row, index) => parseLine(files, path, row, index) ?? []);
  const bars = lines.filter(({ index }) => index <= ROM).map(asBar);
  // With SR-IOV in the kernel the windows come after its six BARs, without it at once (include/linux/pci.h).
  const first = rows.length > ROM + 1 + IOV_BARS ? ROM + 1 + IOV_BARS : ROM + 1;
  const windows = isBridge
    ? lines.filter(({ index, start }) => index >= first && index < first + WINDOW_COUNT && start !== 0n).map(asWindow)
    : [];
  return { bars, windows };
}

function parseLine(files: SysFiles, path: string, row: string, index: number): Line | undefined {
  const parts = /^0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16})$/i.exec(row.trim());
  if (parts === null) {
    files.report(path, `line ${index + 1} is ${JSON.stringify(row.slice(0, 60))}, not two addresses and flags`);
    return undefined;
  }
  const [start, last, flags] = parts.slice(1).map((digits) => BigInt(`0x${digits}`)) as [bigint, bigint, bigint];
  if ((flags & (IO | MEMORY)) === 0n) return undefined; // nothing there
  if (last < start) {
    files.report(path, `line ${index + 1} ends (0x${last.toString(16)}) before it begins (0x${start.toString(16)})`);
    return undefined;
  }
  if (last === 0n) return undefined; // a register that takes no addresses, or a window that is closed
  return { index, start, length: last - start + 1n, flags };
}

function asBar({ index, start, length, flags }: Line): BarResource {
  const memory = index < BARS ? ((flags & MEMORY_64) === 0n ? 'memory32' : 'memory64') : 'rom';
  const unassigned = start === 0n || (flags & (UNSET | DISABLED)) !== 0n;
  return {
    index,
    kind: (flags & IO) === 0n ? memory : 'io',
    address: unassigned ? undefined : start,
    length,
    prefetchable: (flags & PREFETCH) !== 0n,
    flags,
  };
}

function asWindow({ start, length, flags }: Line): BridgeWindow {
  const memory = (flags & PREFETCH) === 0n ? 'memory' : 'prefetchable';
  return { kind: (flags & IO) === 0n ? memory : 'io', address: start, length };
}
