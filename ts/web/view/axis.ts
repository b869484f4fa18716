/**
 * Computes the address axis of a page. Ranges with regions or mappings are to scale, but high enough for a label; the
 * gaps between them are folded. All moments of a journal have one axis, so a box moves only if its address changes.
 */
import type { MemorySnapshot, RangeSnapshot, RegionSnapshot } from '../../guest/inspect.ts';
import type { SnapshotDelta } from '../../journal/delta.ts';

/** A range of guest-physical addresses on the axis. Every box begins and ends at the boundary of a part. */
export interface AxisPart {
  readonly start: string;
  readonly end: string;
  /** Height in pixels at zoom 1. */
  readonly height: number;
  /** Whether the range is empty at all moments, so that the page folds it. */
  readonly gap: boolean;
}

/** Maps each boundary address to its index on the axis. */
export type Places = ReadonlyMap<string, number>;

/** Pixels that the parts share in proportion to their lengths. */
const SCALED_HEIGHT = 440;

/** Minimum height of a part and height of a gap, in pixels: each has a line of text. */
const NORMAL = { height: 24, gap: 28 };
/** The same for an axis with more than `COMPACT_PARTS` parts, which limits the length of the page. */
const COMPACT = { height: 15, gap: 7 };
const COMPACT_PARTS = 120;

type Ends = readonly [start: bigint, end: bigint];

/** Returns the axis of a snapshot and the states after it. */
export function axisOf(snapshot: MemorySnapshot, deltas: readonly SnapshotDelta[]): AxisPart[] {
  const cuts = new Set<bigint>();
  const covered: Ends[] = [];
  for (const [start, end] of allRanges(snapshot, deltas)) {
    cuts.add(start);
    cuts.add(end);
    covered.push([start, end]);
  }
  const parts = partsOf([...cuts].sort(ascending), joined(covered));
  const filled = parts.filter(({ gap }) => !gap);
  const size = filled.length > COMPACT_PARTS ? COMPACT : NORMAL;
  const total = filled.reduce((sum, { start, end }) => sum + (end - start), 0n);
  return parts.map(({ start, end, gap }) => ({
    start: hexText(start),
    end: hexText(end),
    gap,
    height: gap ? size.gap : Math.max(size.height, Math.round((Number(end - start) / Number(total)) * SCALED_HEIGHT)),
  }));
}

/** Returns the index of each boundary address on the axis. */
export function placesOn(parts: readonly AxisPart[]): Places {
  const places = new Map(parts.map(({ start }, index) => [start, index]));
  const last = parts.at(-1);
  if (last !== undefined) places.set(last.end, parts.length);
  return places;
}

/** Returns the index of a boundary address on the axis. */
export function partIndex(places: Places, address: string | undefined): number {
  return places.get(address ?? '') ?? 0;
}

/** Formats an address in lower-case hexadecimal. */
export function hexText(address: bigint): string {
  return `0x${address.toString(16)}`;
}

/** Yields the range of everything that the page draws at any moment. */
function* allRanges(snapshot: MemorySnapshot, deltas: readonly SnapshotDelta[]): Generator<Ends> {
  yield* snapshot.regions.flatMap(placesOf);
  yield* snapshot.flat.map(endsOf);
  yield* snapshot.targets.flatMap(({ mappings }) => mappings.map(endsOf));
  for (const { regions = [], flat = [], targets = [] } of deltas) {
    for (const [, , added] of regions) yield* added.flatMap(placesOf);
    for (const [, , added] of flat) yield* added.map(endsOf);
    for (const { mappings } of targets) for (const [, , added] of mappings) yield* added.map(endsOf);
  }
}

/** Returns the guest-physical ranges of an active region and its mappings; none for an inactive region. */
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

/** Splits the axis at the cuts. A part that no range covers is a gap. */
function partsOf(cuts: readonly bigint[], covered: readonly Ends[]): { start: bigint; end: bigint; gap: boolean }[] {
  const parts: { start: bigint; end: bigint; gap: boolean }[] = [];
  let next = 0;
  for (const [index, start] of cuts.slice(0, -1).entries()) {
    const end = cuts[index + 1] ?? start; // exists: the loop leaves out the last cut
    while ((covered[next]?.[1] ?? end) <= start) next++;
    const range = covered[next];
    parts.push({ start, end, gap: range === undefined || range[0] >= end });
  }
  return parts;
}

/** Merges overlapping and adjacent ranges, and sorts them. */
function joined(ranges: Ends[]): Ends[] {
  const result: Ends[] = [];
  for (const [start, end] of ranges.sort(([a], [b]) => ascending(a, b))) {
    const last = result.at(-1);
    if (last === undefined || last[1] < start) result.push([start, end]);
    else if (last[1] < end) result[result.length - 1] = [last[0], end];
  }
  return result;
}

function ascending(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
