/**
 * The guest-physical addresses of the machine.
 */
import { AddressRange } from 'peerdma';

/** The end of the RAM below 4 GiB. Between it and 4 GiB are devices. */
const LOW_RAM_END = 0xc000_0000n;
const HIGH_RAM = 1n << 32n;

/** The ACPI tables, below 1 MiB and out of the RAM that Linux uses. */
export const ACPI_TABLES = 0xe_0000n;
/** Config space of 16 buses. */
export const ECAM: AddressRange = AddressRange.of(0xe000_0000n, 16n << 20n);
/** For BARs of 32 bits, and of 64 bits. */
export const WINDOWS: readonly AddressRange[] = [
  AddressRange.between(LOW_RAM_END, ECAM.start),
  AddressRange.of(1n << 38n, 1n << 38n),
];

/** The ranges of so many bytes of RAM. */
export function ramRanges(length: bigint): AddressRange[] {
  if (length <= LOW_RAM_END) return [AddressRange.of(0n, length)];
  return [AddressRange.of(0n, LOW_RAM_END), AddressRange.of(HIGH_RAM, length - LOW_RAM_END)];
}
