// The sorted set of ranges, compared with a plain array.
import fc from 'fast-check';
import test from 'ava';
import { AddressRange } from '../ts/index.ts';
import { IntervalMap } from '../ts/interval-map.ts';

interface Item {
  readonly range: AddressRange;
}

const SIZE = 64;
const range = fc
  .record({ start: fc.nat(SIZE - 1), length: fc.integer({ min: 1, max: 12 }) })
  .map(({ start, length }) => AddressRange.of(BigInt(start), BigInt(length)));

test('finds the same ranges as a linear search', (t) => {
  const property = fc.property(
    fc.array(range, { maxLength: 30 }),
    fc.array(range, { maxLength: 10 }),
    (items, queries) => {
      const map = new IntervalMap<Item>();
      let plain: Item[] = [];
      const same = (a: Item[], b: Item[]): boolean =>
        a.length === b.length && a.every((item, index) => item === b[index]);
      for (const [index, one] of items.entries()) {
        const clone = map.clone();
        const hit = plain.filter((item) => item.range.overlaps(one));
        if (hit.length === 0) {
          const item = { range: one };
          map.insert(item);
          plain = [...plain, item].sort((a, b) => Number(a.range.start - b.range.start));
          if (clone.size !== plain.length - 1) return false; // the copy must not change
        } else if (index % 2 === 0) {
          for (const item of hit) map.remove(item);
          plain = plain.filter((item) => !hit.includes(item));
          if (clone.size !== plain.length + hit.length) return false;
        }
        if (map.size !== plain.length || !same(map.values(), plain)) return false;
        for (const query of [...queries, one]) {
          const expected = plain.filter((item) => item.range.overlaps(query));
          if (!same(map.overlapping(query), expected) || map.firstIn(query) !== expected[0]) return false;
          if (map.startingAt(query.start) !== plain.find((item) => item.range.start === query.start)) return false;
        }
      }
      return true;
    },
  );
  t.notThrows(() => fc.assert(property, { numRuns: 500 }));
});
