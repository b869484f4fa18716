/**
 * Gives the event loop turns during long work.
 */
import { setImmediate } from 'node:timers/promises';

/** Milliseconds between two turns of the event loop. */
const SLICE = 4;
/** Reading the clock costs as much as a step: it is read after this many. */
const STEPS = 64;

/** The most items of a batch. */
const BATCH = 1024;

/** Whether a list has so many items that work on all of them takes turns with the event loop. @internal */
export function isLong(list: readonly unknown[]): boolean {
  return list.length > BATCH;
}

/** Splits a list into batches of at most 1,024 items. @internal */
export function batchesOf<T>(list: readonly T[]): (readonly T[])[] {
  if (list.length <= BATCH) return [list];
  const batches: (readonly T[])[] = [];
  for (let at = 0; at < list.length; at += BATCH) batches.push(list.slice(at, at + BATCH));
  return batches;
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

  /** Calls `act` for each item, with turns of the event loop in between. Calls for a short list have none. */
  async forEach<T>(items: Iterable<T>, act: (item: T) => void): Promise<void> {
    for (const item of items) {
      act(item);
      const turn = this.step();
      if (turn !== undefined) await turn;
    }
  }

  /** As `list.filter(keep)`, with turns of the event loop in between. */
  async filter<T>(list: readonly T[], keep: (item: T) => boolean): Promise<T[]> {
    const kept: T[] = [];
    await this.forEach(list, (item) => {
      if (keep(item)) kept.push(item);
    });
    return kept;
  }

  /**
   * Called between two batches: each takes longer than a step.
   *
   * @returns a promise of the event loop's turn, if that is due
   */
  turn(): Promise<void> | undefined {
    if (performance.now() - this.#began < SLICE) return undefined;
    return setImmediate().then(() => {
      this.#began = performance.now();
    });
  }
}
