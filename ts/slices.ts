/**
 * Gives the event loop turns during long work.
 */
import { setImmediate } from 'node:timers/promises';

/** Milliseconds between two turns of the event loop. */
const SLICE = 4;
/** Reading the clock costs as much as a step: it is read after this many. */
const STEPS = 64;

/** The most items of a part. */
const PART = 1024;

/** A list in parts of at most 1,024 items. @internal */
export function partsOf<T>(list: readonly T[]): (readonly T[])[] {
  if (list.length <= PART) return [list];
  const parts: (readonly T[])[] = [];
  for (let at = 0; at < list.length; at += PART) parts.push(list.slice(at, at + PART));
  return parts;
}

/** @internal */
export class Slices {
  #began = performance.now();
  #steps = 0;

  /** Counts a step. @returns a promise of the event loop's turn, if that is due */
  step(): Promise<void> | undefined {
    if (++this.#steps < STEPS) return undefined;
    this.#steps = 0;
    return this.turn();
  }

  /** Between two parts that take longer than a step. @returns a promise of the event loop's turn, if that is due */
  turn(): Promise<void> | undefined {
    if (performance.now() - this.#began < SLICE) return undefined;
    return setImmediate().then(() => {
      this.#began = performance.now();
    });
  }
}
