/**
 * The addresses of a page from top to bottom: what is there is to scale, as far as the smallest stretch can still be read,
 * and what is between is folded. The axis is that of all moments of a journal, so that what doesn't move stays where it is.
 */
import type { MemorySnapshot, RangeSnapshot, RegionSnapshot } from '../../guest/inspect.ts';
import type { SnapshotDelta } from '../../journal/delta.ts';
import type { AxisPart } from './data.ts';

/** Pixels that are shared out by length. */
const TO_SCALE = 440;

/** Pixels for a line of text; and for less where there are so many that a page would get too long. */
const LINE = { height: 24, gap: 28 };
const SMALL = { height: 15, gap: 7 };
const MANY = 120;

type Ends = readonly [start: bigint, end: bigint];

/** The axis for a snapshot and what becomes of it. */
export function axisOf(snapshot: MemorySnapshot, deltas: readonly SnapshotDelta[]): AxisPart[] {
  const cuts = new Set<bigint>();
  const covered: Ends[] = [];
  for (const [start, end] of everything(snapshot, deltas)) {
    cuts.add(start);
    cuts.add(end);
    covered.push([start, end]);
  }
  const parts = partsOf([...cuts].sort(ascending), joined(covered));
  const there = parts.filter(({ gap }) => !gap);
  const room = there.length > MANY ? SMALL : LINE;
  const total = there.reduce((sum, { start, end }) => sum + (end - start), 0n);
  return parts.map(({ start, end, gap }) => ({
    start: `0x${start.toString(16)}`,
    end: `0x${end.toString(16)}`,
    gap,
    height: gap ? room.gap : Math.max(room.height, Math.round((Number(end - start) / Number(total)) * TO_SCALE)),
  }));
}

/** All that is ever drawn. */
function* everything(snapshot: MemorySnapshot, deltas: readonly SnapshotDelta[]): Generator<Ends> {
  yield* snapshot.regions.flatMap(placesOf);
  yield* snapshot.flat.map(endsOf);
  yield* snapshot.targets.flatMap(({ mappings }) => mappings.map(endsOf));
  for (const { regions = [], flat = [], targets = [] } of deltas) {
    for (const [, , added] of regions) yield* added.flatMap(placesOf);
    for (const [, , added] of flat) yield* added.map(endsOf);
    for (const { mappings } of targets) for (const [, , added] of mappings) yield* added.map(endsOf);
  }
}

/** A region and the memory in it, where the guest has them. */
function placesOf({ range, mappings }: RegionSnapshot): Ends[] {
  if (range === undefined) return [];
  const [start, end] = endsOf(range);
  const within = mappings.map((mapping): Ends => {
    const [from, to] = endsOf(mapping);
    return [start + from, start + to];
  });
  return [[start, end], ...within.filter(([, to]) => to <= end)];
}

function endsOf({ start, end }: RangeSnapshot): Ends {
  return [BigInt(start), BigInt(end)];
}

/** Stretches from each cut to the next, of which neighbours that nothing covers are one. */
function partsOf(cuts: readonly bigint[], covered: readonly Ends[]): { start: bigint; end: bigint; gap: boolean }[] {
  const parts: { start: bigint; end: bigint; gap: boolean }[] = [];
  let next = 0;
  for (const [index, start] of cuts.slice(0, -1).entries()) {
    const end = cuts[index + 1] ?? start; // there is one: the last is left out
    while ((covered[next]?.[1] ?? end) <= start) next++;
    const there = covered[next];
    parts.push({ start, end, gap: there === undefined || there[0] >= end });
  }
  return parts;
}

/** The same addresses as sorted stretches that neither overlap nor adjoin. */
function joined(stretches: Ends[]): Ends[] {
  const result: Ends[] = [];
  for (const [start, end] of stretches.sort(([a], [b]) => ascending(a, b))) {
    const last = result.at(-1);
    if (last === undefined || last[1] < start) result.push([start, end]);
    else if (last[1] < end) result[result.length - 1] = [last[0], end];
  }
  return result;
}

function ascending(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
