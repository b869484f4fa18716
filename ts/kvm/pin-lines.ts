/**
 * The interrupt lines of the pins of PCI devices.
 */
import { requireIndex } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';

/** A bus has 32 device numbers (PCI Local Bus Specification 3.0, 3.2.2.3.4). */
const DEVICES = 32;
/** INTA# to INTD#. */
const PINS = 4;
/** The first line of the I/O APIC that the PICs do not have. */
const FIRST_LINE = 16;

/**
 * Returns the line to which an attached bridge connects a pin of a device: for `_PRT` in ACPI.
 *
 * Neighbours have different lines for the same pin, because most devices use INTA# only (PCI Local Bus Specification
 * 3.0, 2.2.6).
 *
 * @param device number of the device on its bus, 0 to 31
 * @param pin 1 to 4 for INTA# to INTD#, as in the Interrupt Pin register. `_PRT` has 0 to 3
 * @returns 16 to 19
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`
 */
export function lineOfPin(device: number, pin: number): number {
  requireWithin(device, 'device', 0, DEVICES - 1);
  requireWithin(pin, 'pin', 1, PINS);
  return FIRST_LINE + ((device + pin - 1) % PINS);
}

function requireWithin(value: number, name: string, first: number, last: number): void {
  requireIndex(value, name);
  if (value >= first && value <= last) return;
  throw new PeerDmaError('ERR_OUT_OF_RANGE', `"${name}" is ${first} to ${last}, not ${value}`);
}
