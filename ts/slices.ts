/**
 * Lets the event loop run between the parts of work that takes long.
 */
import { setImmediate } from 'node:timers/promises';

/** Milliseconds after which the event loop gets a turn. */
const SLICE = 4;
/** Reading the clock costs as much as a step: it is read after this many. */
const STEPS = 64;

/** @internal */
export class Slices {
  #began = performance.now();
  #steps = 0;

  /** Counts a step. @returns a promise of the event loop's turn, if that is due */
  step(): Promise<void> | undefined {
    if (++this.#steps < STEPS) return undefined;
    this.#steps = 0;
    if (performance.now() - this.#began < SLICE) return undefined;
    return setImmediate().then(() => {
      this.#began = performance.now();
    });
  }
}
