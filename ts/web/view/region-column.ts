/**
 * The column of regions, each split into visible, hidden and trapped pieces.
 */
import type { MemorySnapshot, RegionSnapshot } from '../../guest/inspect.ts';
import { backingAt, byPrecedenceIn } from '../../guest/layers.ts';
import { type Places, hexText, partIndex } from './axis.ts';
import { type Box, type Column, kindName, rangeFacts } from './box.ts';
import { laneCount, lanesFor } from './lanes.ts';

/** Returns the column of regions. */
export function regionColumn({ regions }: MemorySnapshot, places: Places): Column {
  const active = regions.filter(({ range }) => range !== undefined);
  const ends = active.map(({ range }) => [partIndex(places, range?.start), partIndex(places, range?.end)] as const);
  const endsOf = new Map(active.map((region, index) => [region, ends[index] ?? ([0, 0] as const)]));
  const tops = topRuns(byPrecedenceIn(active), endsOf, places.size);
  const lanes = lanesFor(ends);
  const addresses = [...places.keys()];
  const idle = regions.length - active.length;
  return {
    title: 'Regions',
    note: idle === 0 ? 'by priority' : `${idle} not active`,
    lanes: laneCount(lanes),
    boxes: active.flatMap((region, index) => {
      const [from, to] = ends[index] ?? [0, 0];
      return regionBoxes({ region, from, to, lane: lanes[index] ?? 0, tops, places, addresses });
    }),
  };
}

/** Adjacent parts of the axis at which the same region has the highest precedence. */
interface TopRun {
  readonly from: number;
  readonly to: number;
  readonly region: RegionSnapshot;
}

/** Returns the runs of the topmost region, in order. @param regions in descending order of precedence */
function topRuns(
  regions: readonly RegionSnapshot[],
  endsOf: ReadonlyMap<RegionSnapshot, readonly [from: number, to: number]>,
  parts: number,
): TopRun[] {
  const tops: (RegionSnapshot | undefined)[] = Array.from({ length: parts });
  // Leads from each part to the next part without a region, so that each part is visited about once (union-find).
  const next = Array.from({ length: parts + 1 }, (_, part) => part);
  const free = (part: number): number => {
    let at = part;
    for (let after = next[at] ?? at; after !== at; after = next[at] ?? at) {
      next[at] = next[after] ?? after;
      at = after;
    }
    return at;
  };
  for (const region of regions) {
    const [from, to] = endsOf.get(region) ?? [0, 0];
    for (let part = free(from); part < to; part = free(part)) {
      tops[part] = region;
      next[part] = part + 1;
    }
  }
  const runs: { from: number; to: number; region: RegionSnapshot }[] = [];
  for (const [part, region] of tops.entries()) {
    const last = runs.at(-1);
    if (last !== undefined && last.to === part && last.region === region) last.to++;
    else if (region !== undefined) runs.push({ from: part, to: part + 1, region });
  }
  return runs;
}

/** An active region with its position on the axis. */
interface PlacedRegion {
  readonly region: RegionSnapshot;
  readonly from: number;
  readonly to: number;
  readonly lane: number;
  /** The topmost regions, in order. */
  readonly tops: readonly TopRun[];
  readonly places: Places;
  /** The first address of each part of the axis. */
  readonly addresses: readonly string[];
}

/** Returns the boxes of one region. */
export function regionBoxes(placed: PlacedRegion): Box[] {
  const { region, from, to, tops, places } = placed;
  const base = BigInt(region.range?.start ?? '0x0');
  const memory = region.mappings.map((mapping) => ({
    mapping,
    from: partIndex(places, hexText(base + BigInt(mapping.start))),
    to: partIndex(places, hexText(base + BigInt(mapping.end))),
  }));
  const boxes: Box[] = [];
  let at = 0;
  for (let index = runAt(tops, from); (tops[index]?.from ?? to) < to; index++) {
    const top = tops[index] as TopRun; // exists: the loop condition has read it
    const end = Math.min(top.to, to);
    let part = Math.max(top.from, from);
    while (part < end) {
      while (at < memory.length && (memory[at]?.to ?? 0) <= part) at++;
      const here = memory[at];
      const has = here !== undefined && here.from <= part;
      let stop = (has ? here.to : here?.from) ?? end;
      while (has && stop < end && memory[at + 1]?.from === stop) stop = memory[++at]?.to ?? stop;
      stop = Math.min(stop, end);
      const { start = '0x0', backing } = has ? here.mapping : {};
      boxes.push(
        regionBox(placed, { from: part, to: stop, region: top.region }, boxes.length, base + BigInt(start), backing),
      );
      part = stop;
    }
  }
  return boxes;
}

/** Returns the index of the first run that ends after a part. */
function runAt(runs: readonly TopRun[], part: number): number {
  let [low, high] = [0, runs.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((runs[middle]?.to ?? 0) > part) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * Returns the box of one piece of a region.
 *
 * @param memory guest-physical address at which its mapping begins
 */
function regionBox(
  { region, from, to, lane, addresses }: PlacedRegion,
  piece: TopRun,
  number: number,
  memory: bigint,
  backing: string | undefined,
): Box {
  const { id, name, kind, priority, range } = region;
  const top = piece.region;
  const hidden = top !== region;
  const start = addresses[piece.from] ?? '0x0';
  const end = addresses[piece.to] ?? '0x0';
  const state = hidden ? 'hidden' : backing === undefined ? 'trapped' : 'shown';
  return {
    key: `region ${id} ${number}`,
    from: piece.from,
    to: piece.to,
    lane,
    label: hidden ? `hidden · ${name}` : backing === undefined ? `trapped · ${name}` : name,
    look: `region ${kind} ${state}${piece.from === from ? ' first' : ''}${piece.to === to ? ' last' : ''}`,
    start,
    facts: [
      ['Region', name],
      ...rangeFacts(start, end),
      ['Region range', `${range?.start}..${range?.end}`],
      ['Kind', kindName(kind)],
      ['Priority', String(priority)],
      ...(hidden ? ([['Hidden by', `"${top.name}" (priority ${top.priority})`]] as const) : []),
      [
        'Backing',
        backing === undefined ? 'none: the VMM handles accesses' : backingAt(backing, BigInt(start) - memory),
      ],
    ],
  };
}
