/** Results of guest accesses that may take effect later. */

/** The result of an access: a promise only if it waits, or takes effect later. @internal */
export type Pending<T> = T | Promise<T>;

/** Calls `act` for each item after the promise of the previous call has resolved. @internal */
export function inTurn<T>(items: Iterator<T>, act: (item: T) => Pending<void>): Pending<void> {
  for (let next = items.next(); next.done !== true; next = items.next()) {
    const pending = act(next.value);
    if (pending instanceof Promise) return pending.then(() => inTurn(items, act));
  }
  return undefined;
}
