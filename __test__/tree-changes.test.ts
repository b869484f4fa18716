// The difference between two versions of a sorted tree, compared with a plain comparison of all entries.
import fc from 'fast-check';
import test from 'ava';
import { SortedTree } from '../ts/sorted-tree.ts';
import { type EntryChange, countBelow, treeChanges, valueGroups } from '../ts/tree-changes.ts';

const byNumber = (a: number, b: number): number => a - b;

/** Enough entries for several levels of nodes. */
const SIZE = 3000;

const edits = fc.array(
  fc.record({
    from: fc.nat(SIZE),
    length: fc.integer({ min: 1, max: 200 }),
    step: fc.integer({ min: 1, max: 40 }),
    remove: fc.boolean(),
  }),
  { maxLength: 5 },
);

type Edits = typeof edits extends fc.Arbitrary<infer T> ? T : never;

function edited(tree: SortedTree<number, object>, list: Edits): SortedTree<number, object> {
  const copy = tree.clone();
  for (const { from, length, step, remove } of list) {
    for (let key = from; key < from + length; key += step) {
      if (remove) copy.delete(key);
      else copy.set(key, {});
    }
  }
  return copy;
}

function naive(before: SortedTree<number, object>, now: SortedTree<number, object>): EntryChange<object>[] {
  const keys = [...new Set([...before.keysArray(), ...now.keysArray()])].sort(byNumber);
  return keys.flatMap((key) => {
    const [removed, added] = [before.get(key), now.get(key)];
    if (removed === added) return [];
    const index = before.keysArray().filter((one) => one < key).length;
    return [{ index, ...(removed === undefined ? {} : { removed }), ...(added === undefined ? {} : { added }) }];
  });
}

test('finds each entry that differs, with its index in the version before', (t) => {
  const property = fc.property(edits, edits, edits, (first, second, third) => {
    const empty = new SortedTree<number, object>(undefined, byNumber);
    const origin = edited(empty, first);
    const [before, now] = [edited(origin, second), edited(origin, third)];
    for (const [a, b] of [
      [before, now],
      [origin, now],
      [now, now],
      [empty, now],
      [now, empty],
    ] as const) {
      t.deepEqual(treeChanges(a, b, byNumber), naive(a, b));
    }
    for (const tree of [empty, origin, now]) t.deepEqual([...valueGroups(tree)].flat(), tree.valuesArray());
    for (const key of [0, 17, SIZE, SIZE * 2]) {
      t.is(countBelow(before, key, byNumber), before.keysArray().filter((one) => one < key).length);
    }
  });
  fc.assert(property, { numRuns: 200 });
});

test('reads only changed entries and the nodes above them, not the shared ones', (t) => {
  const before = new SortedTree<number, object>(undefined, byNumber);
  for (let key = 0; key < 100_000; key++) before.set(key, {});
  const now = before.clone();
  for (const key of [7, 50_000, 99_999]) now.set(key, {});
  for (const key of [8, 70_000]) now.delete(key);
  let compared = 0;
  const changes = treeChanges(before, now, (a, b) => {
    compared++;
    return a - b;
  });
  t.is(changes.length, 5);
  t.true(compared < 2000, `${compared} comparisons among 100000 entries`);
  compared = 0;
  t.is(
    countBelow(before, 60_000, (a, b) => {
      compared++;
      return a - b;
    }),
    60_000,
  );
  t.true(compared < 200, `${compared} comparisons`);
});
