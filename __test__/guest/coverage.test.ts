// The winning region at each address, compared with a model of single addresses.
import fc from 'fast-check';
import test from 'ava';
import { AddressRange } from '../../ts/index.ts';
import { Coverage, type Run } from '../../ts/guest/coverage.ts';

const SIZE = 24;
/** Priorities by region id. The lower id wins a tie. */
const PRIORITY = [0, 2, 1, 1, 2, 0];
const wins = (a: number, b: number): boolean => {
  const difference = (PRIORITY[b] ?? 0) - (PRIORITY[a] ?? 0);
  return difference < 0 || (difference === 0 && a < b);
};
const ALL = AddressRange.of(0n, BigInt(SIZE));

/** The winners of a range, found address by address. */
function naive(active: ReadonlyMap<number, AddressRange>, range: AddressRange): string[] {
  const runs: { start: bigint; end: bigint; region: number }[] = [];
  for (let address = range.start; address < range.end; address++) {
    const here = [...active].filter(([, at]) => at.contains(address)).map(([region]) => region);
    const [region] = here.sort((a, b) => (wins(a, b) ? -1 : 1));
    if (region === undefined) continue;
    const last = runs.at(-1);
    if (last !== undefined && last.region === region && last.end === address) last.end = address + 1n;
    else runs.push({ start: address, end: address + 1n, region });
  }
  return runs.map(({ start, end, region }) => `${start}-${end}: ${region}`);
}

/** The addresses of all regions as ranges, found address by address. */
function union(active: ReadonlyMap<number, AddressRange>): string[] {
  const stretches: [start: bigint, end: bigint][] = [];
  for (let address = 0n; address < SIZE; address++) {
    if (![...active.values()].some((at) => at.contains(address))) continue;
    const last = stretches.at(-1);
    if (last?.[1] === address) last[1]++;
    else stretches.push([address, address + 1n]);
  }
  return stretches.map(([start, end]) => `${start}-${end}`);
}

/** The ranges between gaps, sorted. */
function between(gaps: readonly AddressRange[]): string[] {
  const starts = [0n, ...gaps.map(({ end }) => end)];
  return gaps.flatMap(({ start }, index) => (starts[index] === start ? [] : [`${starts[index]}-${start}`]));
}

const text = (runs: readonly Run[]): string[] =>
  runs.map(({ range, region }) => `${range.start}-${range.end}: ${region}`);

const rangeWithin = fc
  .tuple(fc.nat(SIZE - 1), fc.integer({ min: 1, max: SIZE }))
  .map(([start, length]) => AddressRange.of(BigInt(start), BigInt(Math.min(length, SIZE - start))));

test('the winners equal those of a model of single addresses', (t) => {
  const step = fc.record({ region: fc.nat(PRIORITY.length - 1), at: rangeWithin });
  const property = fc.property(fc.array(step, { maxLength: 40 }), rangeWithin, (steps, query) => {
    let coverage = new Coverage(wins);
    const active = new Map<number, AddressRange>();
    for (const { region, at } of steps) {
      const before = coverage;
      const seen = text(before.winners(ALL)).join();
      coverage = before.clone(wins);
      const old = active.get(region);
      if (old === undefined) {
        coverage.cover(at, region);
        active.set(region, at);
      } else {
        coverage.uncover(old, region);
        active.delete(region);
      }
      if (text(before.winners(ALL)).join() !== seen) throw new Error('a clone changed its origin');
      const taken = between(coverage.free.gapsIn(AddressRange.between(0n, 1n << 64n)));
      if (taken.join() !== union(active).join()) throw new Error(`taken: ${taken.join(', ')}`);
      for (const range of [ALL, query, at]) {
        const [is, due] = [text(coverage.winners(range)), naive(active, range)];
        if (is.join() !== due.join()) throw new Error(`${is.join(', ')} instead of ${due.join(', ')}`);
      }
    }
    for (const [region, at] of active) coverage.uncover(at, region);
    if (coverage.winners(ALL).length > 0) throw new Error('something is left');
  });
  t.notThrows(() => fc.assert(property, { numRuns: 1000 }));
});

test('of equal regions the winner does not depend on the order of adding', (t) => {
  for (const order of [
    [2, 3],
    [3, 2],
  ]) {
    const coverage = new Coverage(wins);
    for (const region of order) coverage.cover(ALL, region);
    t.deepEqual(text(coverage.winners(ALL)), ['0-24: 2']);
  }
});

test('a region may lie at the last addresses of 64 bits', (t) => {
  const coverage = new Coverage(wins);
  const last = AddressRange.of((1n << 64n) - 8n, 8n);
  coverage.cover(last, 0);
  coverage.cover(AddressRange.of((1n << 64n) - 4n, 4n), 1);
  t.deepEqual(
    coverage.winners(last).map(({ range, region }) => [range.length, region]),
    [
      [4n, 0],
      [4n, 1],
    ],
  );
  coverage.uncover(last, 0);
  t.deepEqual(
    coverage.winners(last).map(({ range, region }) => [range.length, region]),
    [[4n, 1]],
  );
});
