/** The sorted index of BARs: owners of addresses, and how many nodes a lookup visits. */
import test from 'ava';
import fc from 'fast-check';
import { AddressRange } from '../../../ts/index.ts';
import { IntervalMap } from '../../../ts/interval-map.ts';
import { BarIndex, type BarSegment } from '../../../ts/pci/host-bridge/bar-index.ts';
import { SortedTree } from '../../../ts/sorted-tree.ts';
import { seedOf } from '../../support/seed.ts';

interface Owner {
  readonly order: number;
}

const range = (start: number, length: number): AddressRange => AddressRange.of(BigInt(start), BigInt(length));

test('each address has the owner of the highest precedence, after any changes', (t) => {
  const END = 64;
  const owners: readonly Owner[] = Array.from({ length: 5 }, (_, order) => ({ order }));
  const ranges = fc.array(
    fc
      .tuple(fc.integer({ min: 0, max: END - 1 }), fc.integer({ min: 1, max: 24 }))
      .map(([start, length]) => range(start, Math.min(length, END - start))),
    { maxLength: 4 },
  );
  const change = fc.tuple(fc.constantFrom(...owners), ranges);
  let changes = 0;
  const property = fc.property(fc.array(change, { minLength: 4, maxLength: 30 }), (all) => {
    const index = new BarIndex<Owner>();
    const model = new Map<Owner, readonly AddressRange[]>();
    for (const [owner, decoded] of all) {
      index.set(owner, decoded);
      model.set(owner, decoded);
      changes++;
      for (let gpa = 0n; gpa < END; gpa++) {
        const expected = owners.find((one) => model.get(one)?.some((each) => each.contains(gpa)));
        const found = index.at(gpa);
        if (found?.owner !== expected) throw new Error(`${gpa}: ${found?.owner.order}, not ${expected?.order}`);
        if (found !== undefined && !found.range.contains(gpa)) throw new Error(`${gpa} is not in ${found.range}`);
      }
      const segments = index.overlapping(range(0, END));
      const length = segments.reduce((sum, segment) => sum + segment.range.length, 0n);
      const covered = segments.map((segment) => segment.range);
      if (covered.some((one, at) => covered.slice(at + 1).some((other) => one.overlaps(other)))) {
        throw new Error(`segments overlap: ${covered.join(' ')}`);
      }
      if (length > END) throw new Error(`${length} bytes`);
    }
  });
  fc.assert(property, { seed: seedOf(t), numRuns: 300 });
  t.true(changes > 2000);
});

/** An index of many BARs of 4 KiB, every other page, that counts comparisons of addresses. */
function countingIndex(bars: number): { index: BarIndex<Owner>; owners: Owner[]; visited: () => number } {
  let visits = 0;
  const tree = new SortedTree<bigint, BarSegment<Owner>>(undefined, (a, b) => {
    visits++;
    return a < b ? -1 : a > b ? 1 : 0;
  });
  const index = new BarIndex<Owner>(new IntervalMap(tree));
  const owners = Array.from({ length: bars }, (_, order) => ({ order }));
  for (const owner of owners) index.set(owner, [range(owner.order * 0x2000, 0x1000)]);
  return {
    index,
    owners,
    visited: () => {
      const count = visits;
      visits = 0;
      return count;
    },
  };
}

test('a lookup and a change visit a logarithm of all BARs', (t) => {
  const BARS = 4096;
  const MOST = 3 * Math.log2(BARS);
  const { index, owners, visited } = countingIndex(BARS);
  for (let at = 0; at < BARS; at += 61) {
    visited();
    t.is(index.at(BigInt(at * 0x2000 + 0xfff))?.owner, owners[at]);
    t.is(index.at(BigInt(at * 0x2000 + 0x1000)), undefined);
    const lookups = visited();
    t.true(lookups > 0 && lookups <= 2 * MOST, `${lookups}`);
    const owner = owners[at] as Owner;
    index.set(owner, [range(BARS * 0x2000 + at * 0x1000, 0x1000)]);
    const changes = visited();
    t.true(changes > 0 && changes <= 6 * MOST, `${changes}`);
  }
});

test('a BAR over others is one segment, and they appear again when it leaves', (t) => {
  const { index, owners } = countingIndex(8);
  const above: Owner = { order: -1 };
  const below: Owner = { order: 100 };
  index.set(above, [range(0, 0x10000)]);
  t.is(index.overlapping(range(0, 0x10000)).length, 1);
  index.set(above, []);
  t.deepEqual(
    index.overlapping(range(0, 0x10000)).map(({ owner }) => owner),
    owners,
  );
  index.set(below, [range(0, 0x10000)]);
  t.is(index.overlapping(range(0, 0x10000)).length, 16, 'between the others');
  for (const owner of owners) index.set(owner, []);
  t.deepEqual([...new Set(index.overlapping(range(0, 0x10000)).map(({ owner }) => owner))], [below]);
});
