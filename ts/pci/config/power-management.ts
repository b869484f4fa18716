/** The power state that a guest sets. The register is the device's; it is tracked because BARs decode only in D0. */
import type { Capability } from './capabilities.ts';
import type { ConfigImage } from './config-image.ts';
import { type Emulation, copyOf } from './emulation.ts';
import { PM_CAP_D1, PM_CAP_D2, PM_CTRL, PM_CTRL_STATE_MASK, PM_PMC, PM_SIZEOF } from './registers.ts';

const D0 = 0;
const D1 = 1;
const D2 = 2;

/** @internal */
export class PowerManagement {
  readonly offset: number;
  readonly length: number = PM_SIZEOF;
  readonly #capabilities: number;

  constructor(image: ConfigImage, { offset }: Capability) {
    this.offset = offset;
    this.#capabilities = image.u16(offset + PM_PMC);
  }

  /** Offset of control and status (PMCSR), 2 bytes. */
  get register(): number {
    return this.offset + PM_CTRL;
  }

  define(emulation: Emulation): void {
    emulation.define({ offset: this.register, length: 2, emulated: 0, writable: PM_CTRL_STATE_MASK });
  }

  /** Whether the function is in D0. */
  isInD0(config: Uint8Array): boolean {
    return this.state(config) === D0;
  }

  /** Returns the power state: 0 for D0 to 3 for D3hot. */
  state(config: Uint8Array): number {
    return (config[this.register] ?? D0) & PM_CTRL_STATE_MASK;
  }

  /** Sets the power state in bytes of config space. */
  setState(config: Uint8Array, power: number): void {
    config[this.register] = ((config[this.register] ?? 0) & ~PM_CTRL_STATE_MASK) | power;
  }

  /**
   * Returns the power state after a write to PMCSR.
   *
   * The function ignores unsupported states. From a low-power state it can enter only deeper states and D0 (PCI Bus
   * Power Management Interface Specification, 5.6).
   *
   * @param to the requested state
   */
  nextState(from: number, to: number): number {
    return to === D0 || (to > from && this.#has(to)) ? to : from;
  }

  /** Returns the bytes after a write, with the resulting power state. */
  applyTransition(before: Uint8Array, after: Uint8Array): Uint8Array {
    const requested = this.state(after);
    const resulting = this.nextState(this.state(before), requested);
    if (resulting === requested) return after;
    const next = copyOf(after);
    this.setState(next, resulting);
    return next;
  }

  #has(power: number): boolean {
    if (power === D1) return (this.#capabilities & PM_CAP_D1) !== 0;
    if (power === D2) return (this.#capabilities & PM_CAP_D2) !== 0;
    return true;
  }
}
