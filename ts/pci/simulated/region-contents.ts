/** The contents of a simulated device's regions: memory, registers, and the parts that VFIO reserves. */
import type { AddressRange } from '../../address-range.ts';
import { PeerDmaError } from '../../errors.ts';
import type { MemoryFile } from '../../memory/memory-file.ts';
import type { SimulatedRegisters } from './options.ts';
import type { RegionContents } from './simulated-region.ts';

/** @internal */
export function memoryContents(file: MemoryFile): RegionContents {
  return {
    isMemory: true,
    read: (offset, length) => file.read(offset, length),
    write: (offset, bytes) => file.write(offset, bytes),
  };
}

/** @internal */
export function registerContents(registers: SimulatedRegisters): RegionContents {
  return {
    isMemory: false,
    read: (offset, length) => registers.read(offset, length),
    write: (offset, bytes) => registers.write(offset, bytes),
  };
}

/** Contents of a ROM. Linux rejects writes with `EINVAL` (`vfio_pci_rw`). @internal */
export function romContents(bdf: string, file: MemoryFile): RegionContents {
  return {
    ...memoryContents(file),
    write: () => {
      throw new PeerDmaError('ERR_SYSTEM', `the ROM of ${bdf}: writing failed: a ROM is read-only (EINVAL)`, {
        errno: 'EINVAL',
        bdf,
      });
    },
  };
}

/**
 * Wraps contents and hides the MSI-X table. Reads return ones, writes are dropped (Linux `vfio_pci_bar_rw`).
 *
 * @internal
 */
export function withoutTable(contents: RegionContents, table: AddressRange): RegionContents {
  return {
    isMemory: contents.isMemory,
    read: (offset, length) => {
      const bytes = contents.read(offset, length);
      const [start, end] = within(table, offset, length);
      return start === end ? bytes : bytes.slice().fill(0xff, start, end);
    },
    write: (offset, bytes) => writeAround(contents, table, offset, bytes),
  };
}

/**
 * Wraps contents and adds the read-only pending bits of MSI-X.
 *
 * @param isPending whether a vector is pending; also called for vectors past the last one
 * @internal
 */
export function withPending(
  contents: RegionContents,
  bits: AddressRange,
  isPending: (vector: number) => boolean,
): RegionContents {
  return {
    isMemory: contents.isMemory,
    read: (offset, length) => {
      const bytes = contents.read(offset, length).slice();
      const [start, end] = within(bits, offset, length);
      for (let at = start; at < end; at++) {
        const first = Number(offset + BigInt(at) - bits.start) * 8;
        bytes[at] = [0, 1, 2, 3, 4, 5, 6, 7].reduce((byte, bit) => byte | (isPending(first + bit) ? 1 << bit : 0), 0);
      }
      return bytes;
    },
    write: (offset, bytes) => writeAround(contents, bits, offset, bytes),
  };
}

/** Writes the bytes outside of a range. */
function writeAround(contents: RegionContents, range: AddressRange, offset: bigint, bytes: Uint8Array): void {
  const [start, end] = within(range, offset, bytes.length);
  if (start === end) return contents.write(offset, bytes);
  if (start > 0) contents.write(offset, bytes.subarray(0, start));
  if (end < bytes.length) contents.write(offset + BigInt(end), bytes.subarray(end));
  return undefined;
}

/** Returns the bytes of an access within a range, as a half-open range; two equal numbers for none. */
function within({ start, end }: AddressRange, offset: bigint, length: number): readonly [start: number, end: number] {
  const clamp = (address: bigint): number => {
    const at = address - offset;
    return at < 0n ? 0 : at > BigInt(length) ? length : Number(at);
  };
  return [clamp(start), clamp(end)];
}
