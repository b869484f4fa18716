/**
 * The accesses to one function, in the order of the calls.
 *
 * An access runs at once unless a config write is in flight. Otherwise it waits for its turn.
 */
import type { Pending } from '../pending.ts';

/** @internal */
export class OrderedAccesses {
  /** The functions of a bridge with a config write in flight. */
  readonly #inFlight: Set<OrderedAccesses>;
  readonly #waiting: (() => void)[] = [];
  /** Results that are not settled: an access may contain another one of the same function. */
  #tracked = 0;

  constructor(inFlight: Set<OrderedAccesses>) {
    this.#inFlight = inFlight;
  }

  /** Runs an access after those that were called before it, whether they succeed or not. */
  run<T>(access: () => Pending<T>): Pending<T> {
    if (!this.#inFlight.has(this)) return this.track(access());
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push(() => {
        try {
          resolve(this.track(access()));
        } catch (error) {
          reject(error as Error);
        }
      });
    });
  }

  /** Lets later accesses wait for the result of one, if it is a promise. @returns the result */
  track<T>(result: Pending<T>): Pending<T> {
    if (!(result instanceof Promise)) return result;
    this.#inFlight.add(this);
    this.#tracked += 1;
    const end = (): void => {
      this.#tracked -= 1;
      if (this.#tracked > 0) return;
      this.#inFlight.delete(this);
      while (!this.#inFlight.has(this)) {
        const next = this.#waiting.shift();
        if (next === undefined) return;
        next();
      }
    };
    result.then(end, end);
    return result;
  }
}

/**
 * Runs an access after the config writes in flight of several functions.
 *
 * It waits at most once, so that a guest cannot delay it without end.
 *
 * @internal
 */
export function runAfter<T>(functions: readonly OrderedAccesses[], access: () => Pending<T>): Pending<T> {
  const [first, ...others] = functions;
  if (first === undefined) return access();
  if (others.length === 0) return first.run(access);
  return Promise.all(functions.map((one) => one.run(() => undefined))).then(access);
}
