/**
 * The difference between two versions of a list, from the entries that differ.
 */
import type { EntryChange } from '../tree-changes.ts';
import type { ListChange } from './delta.ts';

/** The entries that a change removes from a list and adds to it. @internal */
export interface Difference<T> {
  readonly hunks: readonly ListChange<T>[];
  readonly removed: readonly T[];
  readonly added: readonly T[];
}

/**
 * Groups adjacent changes of entries into hunks.
 *
 * @param changes in the order of the list; `index` is the index in the old list
 * @internal
 */
export function differenceOf<T>(changes: readonly EntryChange<T>[]): Difference<T> {
  const hunks: [at: number, removed: number, added: T[]][] = [];
  const removed: T[] = [];
  const added: T[] = [];
  for (const change of changes) {
    let last = hunks.at(-1);
    if (last === undefined || last[0] + last[1] < change.index) hunks.push((last = [change.index, 0, []]));
    if (change.removed !== undefined) {
      last[1]++;
      removed.push(change.removed);
    }
    if (change.added !== undefined) {
      last[2].push(change.added);
      added.push(change.added);
    }
  }
  return { hunks, removed, added };
}
