/**
 * The power state that a guest asks for. The register is the device's; what is asked of it has to be known, since BARs
 * answer in D0 only.
 */
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

  /** Offset of control and status, 2 bytes. */
  get register(): number {
    return this.offset + PM_CTRL;
  }

  define(emulation: Emulation): void {
    emulation.define({ offset: this.register, length: 2, emulated: 0, writable: PM_CTRL_STATE_MASK });
  }

  /** Whether the function is in D0. */
  awake(config: Uint8Array): boolean {
    return this.state(config) === D0;
  }

  /** The power state of these bytes of config space: 0 for D0 to 3 for D3hot. */
  state(config: Uint8Array): number {
    return (config[this.register] ?? D0) & PM_CTRL_STATE_MASK;
  }

  /** Puts a power state into bytes of config space. */
  setState(config: Uint8Array, power: number): void {
    config[this.register] = ((config[this.register] ?? 0) & ~PM_CTRL_STATE_MASK) | power;
  }

  /**
   * The power state that the function takes. It ignores states that it doesn't have, and from a state of low power the
   * only ways are deeper and to D0 (PCI Bus Power Management Interface Specification, 5.6).
   *
   * @param to what was asked for
   */
  taken(from: number, to: number): number {
    return to === D0 || (to > from && this.#has(to)) ? to : from;
  }

  /** The bytes after a write, with the power state that the function takes. */
  settle(before: Uint8Array, after: Uint8Array): Uint8Array {
    const asked = this.state(after);
    const taken = this.taken(this.state(before), asked);
    if (taken === asked) return after;
    const settled = copyOf(after);
    this.setState(settled, taken);
    return settled;
  }

  #has(power: number): boolean {
    if (power === D1) return (this.#capabilities & PM_CAP_D1) !== 0;
    if (power === D2) return (this.#capabilities & PM_CAP_D2) !== 0;
    return true;
  }
}
