/** Simulated devices that share a bus and its reset. */
import type { PhysicalFunction } from '../physical-function.ts';

/** Whether a value is a SimulatedBus. @internal */
export let isBus: (value: unknown) => value is SimulatedBus;

/**
 * A bus: `hotReset` of one of its devices resets all of them.
 *
 * Devices join it through their option `bus`, and leave it when they are closed.
 */
export class SimulatedBus {
  readonly #members = new Map<PhysicalFunction, () => void>();

  static {
    isBus = (value): value is SimulatedBus => typeof value === 'object' && value !== null && #members in value;
  }

  /** The devices on it now. */
  get devices(): readonly PhysicalFunction[] {
    return [...this.#members.keys()];
  }

  /** @param reset resets the function, also if it does not support a reset of its own @internal */
  join(device: PhysicalFunction, reset: () => void): void {
    this.#members.set(device, reset);
  }

  /** @internal */
  leave(device: PhysicalFunction): void {
    this.#members.delete(device);
  }

  /** @internal */
  reset(): void {
    for (const reset of this.#members.values()) reset();
  }
}
