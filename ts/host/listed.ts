/**
 * Formats lists in messages: the first few items, and the number of the others.
 */

/** The most names that a message lists. */
const MAX_NAMES = 8;

/**
 * Formats items as `a, b, c` or `a, …, h and 120 more`.
 *
 * @param items the items; those that are not listed are not read
 * @param count number of items
 * @internal
 */
export function listed<T>(items: Iterable<T>, count: number, nameOf: (item: T) => string): string {
  const names: string[] = [];
  for (const item of items) {
    if (names.length === MAX_NAMES) break;
    names.push(nameOf(item));
  }
  const more = count - names.length;
  return names.join(', ') + (more === 0 ? '' : ` and ${more} more`);
}

/** Yields all items that are not excepted. @internal */
export function* without<T>(items: Iterable<T>, excepted: ReadonlySet<T>): Iterable<T> {
  for (const item of items) if (!excepted.has(item)) yield item;
}
