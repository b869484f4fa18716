/** Results of guest accesses that may take effect later. */
import { types } from 'node:util';

/** The result of an access: a promise only if it waits, or takes effect later. @internal */
export type Pending<T> = T | Promise<T>;

/**
 * Calls `act` for each item after the promise of the previous call has resolved.
 *
 * A promise of the caller may be of another realm, or of a subclass: the result is a promise of this one.
 *
 * @internal
 */
export function inTurn<T>(items: Iterator<T>, act: (item: T) => Pending<void>): Pending<void> {
  for (let next = items.next(); next.done !== true; next = items.next()) {
    const pending = act(next.value);
    if (types.isPromise(pending)) return Promise.resolve(pending).then(() => inTurn(items, act));
  }
  return undefined;
}
