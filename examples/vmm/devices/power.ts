/**
 * Power-off and reset, by the registers that the FADT of ACPI names.
 *
 * Source: ACPI specification 6.5, 4.8.3.6 (reset register) and 4.8.3.7 (sleep control and status registers of
 * hardware-reduced ACPI). A guest without ACPI resets a PC by the same port.
 */
import type { PortHandler, PortSpace } from 'peerdma/kvm';

/** The ports of the registers, with one byte each. That of reset is as on a PC; those of sleep may be any free ones. */
export const SLEEP_CONTROL_PORT = 0x600;
export const SLEEP_STATUS_PORT = 0x601;
export const RESET_PORT = 0xcf9;

/** The value of the reset register that resets the guest, for the FADT. */
export const RESET_VALUE = 0x06;
/** The type of sleep that is power-off, for `\_S5`. */
export const SLEEP_TYPE_OFF = 5;

/** Sleep control: the type in three bits, and the bit that enters the sleep. */
const SLEEP_ENABLE = 0x20;
const sleepType = (value: number): number => (value >> 2) & 0x07;
/** Reset: the bit that resets the processors. */
const RESET_PROCESSORS = 0x04;

/** Ends the run when the guest switches itself off, or resets itself. */
export class Power implements PortHandler {
  readonly #stop: (reason: 'shutdown' | 'reset') => void;

  /** @param stop ends the run, as `VirtualMachine.stop` does */
  constructor(stop: (reason: 'shutdown' | 'reset') => void) {
    this.#stop = stop;
  }

  /** Adds the registers to the ports of a machine. */
  addTo(ports: PortSpace): void {
    for (const port of [SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT, RESET_PORT]) ports.add(port, 1, this);
  }

  /** All bits read as zero: no reset is in progress, and the guest has not woken. */
  read(): number {
    return 0;
  }

  write(port: number, _width: number, value: number): void {
    const isOff = (value & SLEEP_ENABLE) !== 0 && sleepType(value) === SLEEP_TYPE_OFF;
    if (port === SLEEP_CONTROL_PORT && isOff) this.#stop('shutdown');
    if (port === RESET_PORT && (value & RESET_PROCESSORS) !== 0) this.#stop('reset');
  }
}
