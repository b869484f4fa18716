/**
 * The guest-physical addresses of the machine.
 */
import { AddressRange } from 'peerdma';

/** The end of the RAM below 4 GiB. Between it and 4 GiB are devices. */
const LOW_RAM_END = 0xc000_0000n;
const HIGH_RAM_START = 1n << 32n;
/** For BARs of 64 bits. It ends at 2^39, since physical addresses of Intel's client processors have 39 bits. */
const HIGH_WINDOW = AddressRange.of(1n << 38n, 1n << 38n);

/** The ACPI tables: RAM below 1 MiB that the memory map of Linux reserves. */
export const ACPI_TABLES = 0xe_0000n;
/** Config space of 16 buses, with 1 MiB each. The I/O APIC and the local APICs are above it, from 0xfec00000 on. */
export const ECAM: AddressRange = AddressRange.of(0xe000_0000n, 16n << 20n);
/** For BARs of 32 bits, and of 64 bits. */
export const WINDOWS: readonly AddressRange[] = [AddressRange.between(LOW_RAM_END, ECAM.start), HIGH_WINDOW];

const HOTPLUG_ALIGNMENT = 2n << 30n;
/** The unit of RAM that a guest gets while it runs: Linux adds and removes blocks of that size. */
export const HOTPLUG_UNIT: bigint = 128n << 20n;

/** The most bytes of RAM, which end at the window for BARs of 64 bits. */
export const MAX_RAM: bigint = LOW_RAM_END + (HIGH_WINDOW.start - HIGH_RAM_START);

/** Returns the ranges of RAM. @param length 1 to {@link MAX_RAM} bytes */
export function ramRanges(length: bigint): AddressRange[] {
  if (length <= LOW_RAM_END) return [AddressRange.of(0n, length)];
  return [AddressRange.of(0n, LOW_RAM_END), AddressRange.of(HIGH_RAM_START, length - LOW_RAM_END)];
}

/**
 * Returns the range of RAM that a guest gets while it runs.
 *
 * It begins at a multiple of 2 GiB, the largest unit of Linux.
 *
 * @param length bytes of RAM at boot, as for {@link ramRanges}
 * @param hotplug bytes of RAM while it runs
 * @returns `undefined` if it does not fit below the window for BARs of 64 bits
 */
export function hotplugRange(length: bigint, hotplug: bigint): AddressRange | undefined {
  const end = ramRanges(length).at(-1)?.end ?? 0n;
  const first = end > HIGH_RAM_START ? end : HIGH_RAM_START;
  const range = AddressRange.of((first + HOTPLUG_ALIGNMENT - 1n) & -HOTPLUG_ALIGNMENT, hotplug);
  return range.end <= HIGH_WINDOW.start ? range : undefined;
}
