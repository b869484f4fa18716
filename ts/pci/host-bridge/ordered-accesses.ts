/**
 * The accesses to one function, in the order of the calls.
 *
 * An access runs at once unless a config write is in flight. Otherwise it waits for its turn.
 */

/** The result of an access: a promise only if it waits, or takes effect later. @internal */
export type Pending<T> = T | Promise<T>;

/** @internal */
export class OrderedAccesses {
  /** The functions of a bridge with a config write in flight. */
  readonly #inFlight: Set<OrderedAccesses>;
  readonly #waiting: (() => void)[] = [];

  constructor(inFlight: Set<OrderedAccesses>) {
    this.#inFlight = inFlight;
  }

  /** Runs an access after those that were called before it, whether they succeed or not. */
  run<T>(access: () => Pending<T>): Pending<T> {
    if (!this.#inFlight.has(this)) return this.#start(access);
    return new Promise<T>((resolve, reject) => {
      this.#waiting.push(() => {
        try {
          resolve(this.#start(access));
        } catch (error) {
          reject(error as Error);
        }
      });
    });
  }

  #start<T>(access: () => Pending<T>): Pending<T> {
    const result = access();
    if (!(result instanceof Promise)) return result;
    this.#inFlight.add(this);
    const end = (): void => {
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
export function runAfter<T>(functions: readonly OrderedAccesses[], access: () => T): Pending<T> {
  const [first, ...others] = functions;
  if (first === undefined) return access();
  if (others.length === 0) return first.run(access);
  return Promise.all(functions.map((one) => one.run(() => undefined))).then(access);
}

/** Calls `act` for each item after the promise of the previous call has resolved. @internal */
export function inTurn<T>(items: Iterator<T>, act: (item: T) => Pending<void>): Pending<void> {
  for (let next = items.next(); next.done !== true; next = items.next()) {
    const pending = act(next.value);
    if (pending instanceof Promise) return pending.then(() => inTurn(items, act));
  }
  return undefined;
}
