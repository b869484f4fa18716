/**
 * Counts the values that sorted trees return. A test can show that an operation reads only what it changes.
 */
import { SortedTree } from '../../ts/sorted-tree.ts';

const original = {
  valuesArray: SortedTree.prototype.valuesArray,
  forRange: SortedTree.prototype.forRange,
  entries: SortedTree.prototype.entries,
};

/** Runs an operation, and returns how many values all sorted trees of the process have returned. */
export async function valuesRead(act: () => unknown): Promise<number> {
  let count = 0;
  SortedTree.prototype.valuesArray = function valuesArray(...args) {
    const values: unknown[] = original.valuesArray.apply(this, args);
    count += values.length;
    return values;
  };
  SortedTree.prototype.forRange = function forRange(low, high, includeHigh, onFound, initialCounter) {
    const counted = (key: unknown, value: unknown, index: number): unknown => {
      count++;
      return onFound?.(key, value, index);
    };
    return original.forRange.call(this, low, high, includeHigh, counted as () => void, initialCounter);
  };
  SortedTree.prototype.entries = function entries(...args) {
    const iterator: IterableIterator<[unknown, unknown]> = original.entries.apply(this, args);
    const next = iterator.next.bind(iterator);
    iterator.next = () => {
      const result = next();
      if (result.done !== true) count++;
      return result;
    };
    return iterator;
  };
  try {
    await act();
  } finally {
    Object.assign(SortedTree.prototype, original);
  }
  return count;
}
