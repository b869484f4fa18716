/**
 * Where the MSI-X structures of a device are within its BARs, answered for by the emulation.
 */
import { AddressRange } from '../address-range.ts';
import type { ConfigSpace } from './config/config-space.ts';
import type { AssignedInterrupts } from './interrupts/assigned-interrupts.ts';
import type { EmulatedArea } from './mmio.ts';

/** @internal */
export function msixAreas({ msix }: ConfigSpace, interrupts: AssignedInterrupts): EmulatedArea[] {
  if (msix === undefined) return [];
  const { table, pending } = msix;
  return [
    {
      bar: table.bar,
      range: AddressRange.of(table.offset, table.length),
      read: (offset, length) => interrupts.readTable(Number(offset), length),
      write: (offset, bytes) => interrupts.writeTable(Number(offset), bytes),
    },
    {
      bar: pending.bar,
      range: AddressRange.of(pending.offset, pending.length),
      read: (offset, length) => interrupts.readPending(Number(offset), length),
      write: () => {}, // read-only
    },
  ];
}
