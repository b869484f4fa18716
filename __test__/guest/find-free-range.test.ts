// Ranges for memory without a fixed address: free, reachable by every IOMMU, aligned, and as low as possible.
import test from 'ava';
import fc from 'fast-check';
import { AddressRange } from '../../ts/index.ts';
import { FreeSpace } from '../../ts/guest/free-space.ts';
import { findFreeRange } from '../../ts/guest/find-free-range.ts';

function without(taken: readonly AddressRange[]): FreeSpace {
  const free = new FreeSpace();
  for (const one of taken) free.take(one);
  return free;
}

const range = (start: number, end: number): AddressRange => AddressRange.between(BigInt(start), BigInt(end));

test('finds the lowest range that is free and common to all', (t) => {
  const find = (length: number, alignment: number, allowed: AddressRange[][], taken: AddressRange[] = []) =>
    findFreeRange(BigInt(length), BigInt(alignment), allowed, without(taken))?.toString();
  t.is(find(4, 1, [[range(0, 16)]]), '0x0..0x4');
  t.is(find(4, 8, [[range(1, 15)]]), '0x8..0xc');
  t.is(find(4, 1, [[range(0, 16)]], [range(3, 6)]), '0x6..0xa');
  t.is(find(4, 4, [[range(0, 16)]], [range(3, 6)]), '0x8..0xc');
  t.is(find(4, 1, [[range(8, 12), range(0, 4)]], [range(3, 4)]), '0x8..0xc');
  t.is(find(4, 1, [[range(0, 16)], [range(2, 9)]]), '0x2..0x6');
  t.is(find(4, 1, [[range(0, 16)], [range(2, 5)]]), undefined);
  t.is(find(17, 1, [[range(0, 16)]]), undefined);
  t.is(find(1, 1, []), undefined, 'no range is allowed');
});

test('finds the range that trying every address finds', (t) => {
  const ranges = fc.uniqueArray(fc.tuple(fc.nat(60), fc.integer({ min: 1, max: 12 })), { maxLength: 5 });
  const lists = (all: [number, number][]): AddressRange[] => all.map(([start, length]) => range(start, start + length));
  fc.assert(
    fc.property(
      ranges,
      ranges,
      ranges,
      fc.integer({ min: 1, max: 9 }),
      fc.constantFrom(1, 2, 4),
      (a, b, c, length, by) => {
        const [first, second, taken] = [lists(a), lists(b), lists(c)];
        const fits = (start: number): boolean => {
          const place = range(start, start + length);
          const within = (all: AddressRange[]): boolean => all.some((one) => one.contains(place));
          return start % by === 0 && within(first) && within(second) && !taken.some((one) => one.overlaps(place));
        };
        const expected = Array.from({ length: 80 }, (_, start) => start).find(fits);
        const found = findFreeRange(BigInt(length), BigInt(by), [first, second], without(taken));
        t.is(found === undefined ? undefined : Number(found.start), expected);
      },
    ),
    { numRuns: 2000 },
  );
});
