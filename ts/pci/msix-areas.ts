/** The MSI-X structures in the BARs of a device, emulated for the guest. */
import type { ConfigSpace } from './config/config-space.ts';
import { rangeOf } from './config/msix.ts';
import type { AssignedInterrupts } from './interrupts/assigned-interrupts.ts';
import type { EmulatedArea } from './mmio.ts';
import type { PhysicalFunction } from './physical-function.ts';

/** Returns a function that reads the device's pending bits, by offset and length in bytes. @internal */
export function pendingBitsOf(
  { msix }: ConfigSpace,
  { regions }: PhysicalFunction,
): (offset: number, length: number) => Uint8Array {
  return (offset, length) => {
    const { bar = 0, offset: start = 0n } = msix?.pending ?? {};
    return regions[bar]?.read(start + BigInt(offset), length) ?? new Uint8Array(length);
  };
}

/** @internal */
export function msixAreas({ msix }: ConfigSpace, interrupts: AssignedInterrupts): EmulatedArea[] {
  if (msix === undefined) return [];
  const { table, pending } = msix;
  return [
    {
      bar: table.bar,
      range: rangeOf(table),
      reason: 'it holds the MSI-X table',
      read: (offset, length) => interrupts.readTable(Number(offset), length),
      write: (offset, bytes) => interrupts.writeTable(Number(offset), bytes),
    },
    {
      bar: pending.bar,
      range: rangeOf(pending),
      reason: 'it holds the MSI-X pending bits',
      read: (offset, length) => interrupts.readPending(Number(offset), length),
      write: () => {}, // read-only
    },
  ];
}
