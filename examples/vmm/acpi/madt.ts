/**
 * The MADT: the interrupt controllers of KVM (ACPI 6.5, 5.2.12).
 */
import { type Bytes, u32, u8 } from './bytes.ts';
import { table } from './table.ts';

const LOCAL_APIC_ADDRESS = 0xfee0_0000;
const IO_APIC_ADDRESS = 0xfec0_0000;

const REVISION = 5;
const ENABLED = 1;
/** The most processors. APIC IDs have 8 bits here, and 255 is all (Intel SDM volume 3, Physical Destination Mode). */
export const MAX_CPUS = 255;

/** Types of entries, with their lengths. */
const LOCAL_APIC = [0, 8] as const;
const IO_APIC = [1, 12] as const;

/** @param cpus their number. The APIC ID of each is its index */
export function madt(cpus: number): Bytes {
  if (cpus > MAX_CPUS) throw new Error(`the MADT describes up to ${MAX_CPUS} processors, not ${cpus}`);
  const ids = Array.from({ length: cpus }, (_, id) => id);
  return table('APIC', REVISION, [
    ...u32(LOCAL_APIC_ADDRESS, 0), // no flags: guests do not use the PICs
    ...ids.flatMap((id) => [...u8(...LOCAL_APIC, id, id), ...u32(ENABLED)]),
    ...u8(...IO_APIC, 0, 0),
    ...u32(IO_APIC_ADDRESS, 0), // its first line has the number 0
  ]);
}
