/**
 * Reads the file `resource` of a function. It has the host addresses of its BARs and, for a bridge, of its windows.
 *
 * Each line has first address, last address and flags (Linux, Documentation/PCI/sysfs-pci.rst). Flags are those of
 * include/linux/ioport.h.
 */
import type { SysFiles } from './sys-files.ts';

const IO = 0x100n;
const MEMORY = 0x200n;
const PREFETCH = 0x2000n;
const MEMORY_64 = 0x10_0000n;
const DISABLED = 0x1000_0000n;
const UNSET = 0x2000_0000n;

/** Number of lines for BARs; the line of the ROM follows. */
const BARS = 6;
const ROM = 6;
/** Lines of windows. They follow BARs, ROM and, if the kernel has SR-IOV, six lines for virtual functions. */
const WINDOW_COUNT = 4;
const IOV_BARS = 6;

/** A BAR of a function, or its ROM. */
export interface BarResource {
  /** VFIO's region index: 0 to 5, 6 for the ROM. */
  readonly index: number;
  /** Kind of addresses; a `memory64` BAR takes two registers. */
  readonly kind: 'io' | 'memory32' | 'memory64' | 'rom';
  /** Physical address on the host; `undefined` if none is assigned. */
  readonly address: bigint | undefined;
  /** Bytes. */
  readonly length: bigint;
  /** Whether reads have no side effects, so that the BAR can be in a prefetchable window. */
  readonly prefetchable: boolean;
  /** The kernel's flags (include/linux/ioport.h). */
  readonly flags: bigint;
}

/** A range of addresses that a bridge forwards downwards. */
export interface BridgeWindow {
  /** Kind of the window: I/O ports, memory or prefetchable memory. */
  readonly kind: 'io' | 'memory' | 'prefetchable';
  /** First physical address on the host. */
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

/** Reads BARs and windows of the function in `folder`. @internal */
export function readResources(files: SysFiles, folder: string, isBridge: boolean): Resources {
  const path = `${folder}/resource`;
  const text = files.text(path);
  if (text === undefined) return { bars: [], windows: [] };
  const rows = text.split('\n');
  const lines = rows.flatMap((row, index) => parseLine(files, path, row, index) ?? []);
  const bars = lines.filter(({ index }) => index <= ROM).map(asBar);
  // If the kernel has SR-IOV, the six BARs of virtual functions precede the windows (include/linux/pci.h).
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
  if ((flags & (IO | MEMORY)) === 0n) return undefined; // an unused line
  if (last < start) {
    files.report(path, `line ${index + 1} ends (0x${last.toString(16)}) before it begins (0x${start.toString(16)})`);
    return undefined;
  }
  if (last === 0n) return undefined; // an unimplemented BAR, or a closed window
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
