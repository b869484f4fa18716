/**
 * The FADT of a machine without the fixed hardware of a PC (ACPI 6.5, 4.1 and 5.2.9).
 */
import { RESET_VALUE } from '../devices/power.ts';
import { type Bytes, u16, u32, u64, u8, zeros } from './bytes.ts';
import { HEADER_LENGTH, table } from './table.ts';

/** The ports by which the guest ends its run. */
export interface PowerPorts {
  /** The guest powers off by writing its sleep type here. */
  readonly sleepControl: number;
  /** The guest clears its wake status here. This machine does not sleep: reads are 0. */
  readonly sleepStatus: number;
  /** The guest resets the machine by writing {@link RESET_VALUE}. */
  readonly reset: number;
}

/** Offsets of fields (5.2.9). Fixed hardware has the fields between them. */
const BOOT_ARCHITECTURE = 109;
const AFTER_DSDT = 148;
const SLEEP_CONTROL = 244;

const REVISION = 6;
const MINOR_REVISION = 5;

/** IAPC_BOOT_ARCH. There is no keyboard controller either, which bit 1 would report. */
const VGA_NOT_PRESENT = 1 << 2;
const CMOS_CLOCK_NOT_PRESENT = 1 << 5;

/** Flags. */
const WBINVD = 1 << 0;
const NO_FIXED_BUTTONS = (1 << 4) | (1 << 5);
const RESET_REGISTER = 1 << 10;
const HARDWARE_REDUCED = 1 << 20;

/** @param dsdt guest-physical address */
export function fadt(dsdt: bigint, { sleepControl, sleepStatus, reset }: PowerPorts): Bytes {
  return table('FACP', REVISION, [
    ...zeros(BOOT_ARCHITECTURE - HEADER_LENGTH),
    ...u16(VGA_NOT_PRESENT | CMOS_CLOCK_NOT_PRESENT),
    ...u8(0), // reserved
    ...u32(WBINVD | NO_FIXED_BUTTONS | RESET_REGISTER | HARDWARE_REDUCED),
    ...portRegister(reset),
    ...u8(RESET_VALUE, 0, 0, MINOR_REVISION), // no flags of ARM
    ...u64(0, dsdt), // no FACS
    ...zeros(SLEEP_CONTROL - AFTER_DSDT),
    ...portRegister(sleepControl),
    ...portRegister(sleepStatus),
    ...u64(0), // no vendor of a hypervisor
  ]);
}

/** The generic address structure of a register of 8 bits at a port (ACPI 6.5, 5.2.3.2). */
function portRegister(port: number): Bytes {
  const [systemIo, bits, offset, byteAccess] = [1, 8, 0, 1];
  return [...u8(systemIo, bits, offset, byteAccess), ...u16(port, 0, 0, 0)];
}
