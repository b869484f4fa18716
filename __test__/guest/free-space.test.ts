// The free addresses, and the number of them that a search reads.
import fc from 'fast-check';
import test from 'ava';
import { AddressRange } from '../../ts/index.ts';
import { FreeSpace } from '../../ts/guest/free-space.ts';
import { GapNode } from '../../ts/guest/gap-tree.ts';

const SIZE = 200;
const range = (start: number, end: number): AddressRange => AddressRange.between(BigInt(start), BigInt(end));
const ALL = range(0, SIZE);

test('takes, frees and finds addresses like a model of single addresses', (t) => {
  const step = fc.record({
    op: fc.constantFrom('take', 'free'),
    start: fc.nat(SIZE - 1),
    length: fc.integer({ min: 1, max: 12 }),
    wanted: fc.integer({ min: 1, max: 9 }),
    alignment: fc.constantFrom(1, 2, 4, 16, 64),
    from: fc.nat(SIZE - 1),
  });
  const property = fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
    const free = new FreeSpace();
    const taken = Array.from({ length: SIZE }, () => false);
    for (const { op, start, length, wanted, alignment, from } of steps) {
      const before = free.clone();
      const gaps = String(before.gapsIn(ALL));
      const end = Math.min(start + length, SIZE);
      if (op === 'take') free.take(range(start, end));
      else if (!taken.slice(start, end).every(Boolean)) continue;
      else free.free(range(start, end), []);
      taken.fill(op === 'take', start, end);
      if (String(before.gapsIn(ALL)) !== gaps) throw new Error('a clone changed its origin');
      const fits = (at: number): boolean =>
        at % alignment === 0 && at + wanted <= SIZE && !taken.slice(at, at + wanted).some(Boolean);
      const due = Array.from({ length: SIZE - from }, (_, index) => from + index).find(fits);
      const found = free.lowest(BigInt(wanted), BigInt(alignment), range(from, SIZE));
      if (found?.start !== (due === undefined ? undefined : BigInt(due))) throw new Error(`${found} for ${due}`);
    }
  });
  t.notThrows(() => fc.assert(property, { numRuns: 100 }));
});

/** The number of nodes of gap trees that an operation reads to decide whether a gap suffices. */
function nodesRead(act: () => unknown): number {
  const { mayHold } = GapNode.prototype;
  let count = 0;
  GapNode.prototype.mayHold = function counted(...args) {
    count++;
    return mayHold.apply(this, args);
  };
  try {
    act();
  } finally {
    GapNode.prototype.mayHold = mayHold;
  }
  return count;
}

for (const [what, length, alignment] of [
  ['are too short', 2n, 1n],
  ['are not aligned', 1n, 64n],
] as const) {
  test(`skips gaps that ${what} without reading each`, (t) => {
    const free = new FreeSpace();
    const count = 1 << 12;
    for (let page = 1; page < count; page += 2) free.take(range(64 * page - 63, 64 * page + 1));
    for (let page = 2; page < count; page += 2) free.take(range(64 * page - 63, 64 * page - 32));
    for (let page = 2; page < count; page += 2) free.take(range(64 * page - 31, 64 * page + 1));
    free.take(range(0, 1));
    const gaps = free.gapsIn(range(0, 64 * count)).length;
    t.true(gaps >= count / 2 - 1, String(gaps));
    const read = nodesRead(() => {
      const place = free.lowest(length, alignment, range(0, 1 << 30));
      t.true(place !== undefined && place.start >= 64 * (count - 2), String(place));
    });
    t.true(read <= 3 * Math.log2(gaps), `${read} of ${gaps}`);
  });
}
