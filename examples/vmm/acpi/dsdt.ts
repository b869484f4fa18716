/**
 * The DSDT: power-off, and the devices that a guest cannot find by itself.
 */
import type { AddressRange } from 'peerdma';
import { SLEEP_TYPE_OFF } from '../devices/power.ts';
import { SERIAL_PORTS } from '../devices/serial.ts';
import { device, integer, name, packageOf, scope, text } from './aml.ts';
import type { Bytes } from './bytes.ts';
import { hostBridge, reservedEcam } from './pci.ts';
import { edgeInterrupt, ports, resources } from './resources.ts';
import { table } from './table.ts';

/** A serial port that is compatible with the 16550. */
export interface SerialPort {
  /** The first of its eight ports. */
  readonly port: number;
  /** Its line of the I/O APIC. */
  readonly line: number;
}

/** The devices of the table. */
export interface DsdtOptions {
  /** The number of processors, 1 to 255. */
  readonly cpus: number;
  /** The addresses of config space: 1 MiB for each bus. */
  readonly ecam: AddressRange;
  /** The addresses for BARs. At least one range is below 4 GiB, for BARs of 32 bits. */
  readonly windows: readonly AddressRange[];
  readonly serial: SerialPort;
}

/** Integers have 64 bits from this revision on. */
const REVISION = 2;

/** The hardware ID of processors (ACPI 6.5, 8.4). */
const PROCESSOR = 'ACPI0007';
/** The hardware ID of a 16550A (Linux, drivers/tty/serial/8250/8250_pnp.c). */
const SERIAL = 'PNP0501';

export function dsdt({ cpus, ecam, windows, serial }: DsdtOptions): Bytes {
  const processors = Array.from({ length: cpus }, (_, index) => processor(index));
  return table('DSDT', REVISION, [
    ...name('_S5', packageOf(integer(SLEEP_TYPE_OFF), integer(0), integer(0), integer(0))),
    ...scope('_SB', ...processors, hostBridge(ecam, windows), reservedEcam(ecam), serialPort(serial)),
  ]);
}

/** A processor, with its number in the MADT. */
function processor(index: number): Bytes {
  const digits = index.toString(16).toUpperCase().padStart(3, '0');
  return device(`C${digits}`, name('_HID', text(PROCESSOR)), name('_UID', integer(index)));
}

function serialPort({ port, line }: SerialPort): Bytes {
  const used = resources(ports(port, SERIAL_PORTS), edgeInterrupt(line));
  return device('COM1', name('_HID', text(SERIAL)), name('_UID', integer(0)), name('_CRS', used));
}
