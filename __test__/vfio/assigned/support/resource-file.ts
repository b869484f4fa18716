/**
 * The kernel's data about the BARs of a device. They are lines of `resource` in sysfs
 * (Documentation/ABI/testing/sysfs-bus-pci, flags in linux/ioport.h).
 */
import { readFileSync } from 'node:fs';
import type { ProbedBar } from '../../../../examples/guest/firmware.ts';

const IORESOURCE_MEM = 0x200n;
const IORESOURCE_PREFETCH = 0x2000n;
const IORESOURCE_MEM_64 = 0x10_0000n;

export interface HostBar extends ProbedBar {
  /** Physical address. */
  readonly address: bigint;
}

/** The memory BARs among BARs 0 to 5. */
export function hostBars(bdf: string): HostBar[] {
  const lines = readFileSync(`/sys/bus/pci/devices/${bdf}/resource`, 'utf8').split('\n').slice(0, 6);
  return lines.flatMap((line, index) => {
    const [start = 0n, last = 0n, flags = 0n] = line.split(' ').map(BigInt);
    if ((flags & IORESOURCE_MEM) === 0n) return [];
    const is64Bit = (flags & IORESOURCE_MEM_64) !== 0n;
    return [
      { index, length: last - start + 1n, is64Bit, prefetchable: (flags & IORESOURCE_PREFETCH) !== 0n, address: start },
    ];
  });
}
