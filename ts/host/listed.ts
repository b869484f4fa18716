/**
 * Lists in messages: the first few, and how many more there are.
 */

/** Names that a message lists; of more it gives the number. */
const MOST_NAMES = 8;

/**
 * `a, b, c` or `a, …, h and 120 more`.
 *
 * @param items read only as far as they are listed
 * @param count how many they are
 * @internal
 */
export function listed<T>(items: Iterable<T>, count: number, nameOf: (item: T) => string): string {
  const names: string[] = [];
  for (const item of items) {
    if (names.length === MOST_NAMES) break;
    names.push(nameOf(item));
  }
  const more = count - names.length;
  return names.join(', ') + (more === 0 ? '' : ` and ${more} more`);
}

/** Items without some of them, one at a time. @internal */
export function* without<T>(items: Iterable<T>, excepted: ReadonlySet<T>): Iterable<T> {
  for (const item of items) if (!excepted.has(item)) yield item;
}
