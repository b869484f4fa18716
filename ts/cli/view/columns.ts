/**
 * Lays out the columns of a page for one snapshot: regions, flat map and targets. The functions also run in the page,
 * so they use only functions of this module and of other modules of the page.
 */
import type { MemorySnapshot, RegionSnapshot, MappingStatusSnapshot, SubMappingSnapshot } from '../../guest/inspect.ts';
import { backingAt, byPrecedenceIn } from '../../guest/layers.ts';
import { stateOf, whyAbsent } from '../../guest/target-view.ts';
import { lengthText } from './format.ts';

/** A box in a column: a range of addresses with a label. */
export interface Box {
  /** Identifies the same box at different moments. */
  readonly key: string;
  /** Index of its first part of the axis; `to` is the index after its last part. */
  readonly from: number;
  readonly to: number;
  /** Index of its lane, from the left. Overlapping boxes have different lanes. */
  readonly lane: number;
  readonly label: string;
  /** CSS classes of the box. */
  readonly look: string;
  /** Its first address. */
  readonly start: string;
  /** Facts for the panel, in order. */
  readonly facts: readonly Fact[];
}

/** A named fact of a box. */
export type Fact = readonly [name: string, value: string];

/** A column of the page. */
export interface Column {
  readonly title: string;
  readonly note: string;
  readonly lanes: number;
  readonly boxes: readonly Box[];
}

/** Maps each boundary address to its index on the axis. */
export type Places = ReadonlyMap<string, number>;

/** Returns all columns of a page. */
export function columnsOf(snapshot: MemorySnapshot, places: Places): Column[] {
  return [regionColumn(snapshot, places), flatColumn(snapshot, places), ...targetColumns(snapshot, places)];
}

/** Returns the column of regions, each split into visible, hidden and trapped pieces. */
export function regionColumn({ regions }: MemorySnapshot, places: Places): Column {
  const active = regions.filter(({ range }) => range !== undefined);
  const ends = active.map(({ range }) => [placeOf(places, range?.start), placeOf(places, range?.end)] as const);
  const endsOf = new Map(active.map((region, index) => [region, ends[index] ?? ([0, 0] as const)]));
  const tops = topRuns(byPrecedenceIn(active), endsOf, places.size);
  const lanes = lanesFor(ends);
  const addresses = [...places.keys()];
  const idle = regions.length - active.length;
  return {
    title: 'Regions',
    note: idle === 0 ? 'by priority' : `${idle} not active`,
    lanes: lanesIn(lanes),
    boxes: active.flatMap((region, index) => {
      const [from, to] = ends[index] ?? [0, 0];
      return regionBoxes({ region, from, to, lane: lanes[index] ?? 0, tops, places, addresses });
    }),
  };
}

/** Adjacent parts of the axis at which the same region has the highest precedence. */
export interface TopRun {
  readonly from: number;
  readonly to: number;
  readonly region: RegionSnapshot;
}

/** Returns the runs of the topmost region, in order. @param regions in descending order of precedence */
export function topRuns(
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
export interface PlacedRegion {
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
    from: placeOf(places, hexOf(base + BigInt(mapping.start))),
    to: placeOf(places, hexOf(base + BigInt(mapping.end))),
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
export function runAt(runs: readonly TopRun[], part: number): number {
  let [low, high] = [0, runs.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((runs[middle]?.to ?? 0) > part) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Returns the box of one piece of a region. @param memory guest-physical address at which its mapping begins */
export function regionBox(
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
      ['Addresses', `${start}..${end}`],
      ['Length', lengthText(BigInt(end) - BigInt(start))],
      ['Region range', `${range?.start}..${range?.end}`],
      ['Kind', kind === 'ram' ? 'RAM' : 'device memory'],
      ['Priority', String(priority)],
      ...(hidden ? ([['Hidden by', `"${top.name}" (priority ${top.priority})`]] as const) : []),
      [
        'Backing',
        backing === undefined ? 'none: the VMM handles accesses' : backingAt(backing, BigInt(start) - memory),
      ],
    ],
  };
}

/** Returns the column of the flat map. */
export function flatColumn({ flat }: MemorySnapshot, places: Places): Column {
  const seen = new Map<string, number>();
  return {
    title: 'Flat map',
    note: flat.length === 1 ? '1 sub-mapping' : `${flat.length} sub-mappings`,
    lanes: 1,
    boxes: flat.map((sub) => ({
      key: numbered(seen, `flat ${sub.region} ${sub.backing}`),
      from: placeOf(places, sub.start),
      to: placeOf(places, sub.end),
      lane: 0,
      label: sub.region,
      look: `flat ${sub.kind}${sub.writable ? '' : ' read-only'}`,
      start: sub.start,
      facts: [...factsOf(sub), ['Devices may', sub.writable ? 'read and write' : 'read'], ['Backing', sub.backing]],
    })),
  };
}

/** Returns a column for each DMA target. */
export function targetColumns({ targets, flat }: MemorySnapshot, places: Places): Column[] {
  const shown = new Map(flat.map((sub) => [sub.start, sub]));
  return targets.map((target): Column => {
    const { name, mappings, following, peerToPeer } = target;
    const there = new Set(mappings.map(({ start }) => start));
    const absent = flat.filter(({ start }) => !there.has(start));
    const seen = new Map<string, number>();
    const all = [
      ...mappings.map((mapping) => ({ mapping, box: targetBox(mapping, shown.get(mapping.start), places, seen) })),
      ...absent.map((sub) => ({ mapping: sub, box: absentBox(sub, whyAbsent(target), places, seen) })),
    ];
    const lanes = lanesFor(all.map(({ box }) => [box.from, box.to] as const));
    const quarantined = mappings.filter(({ state }) => state === 'quarantined').length;
    const missing = all.filter(({ box }) => !['target mapped', 'target quarantined'].includes(box.look)).length;
    const notes = [
      following ? '' : 'leaving',
      missing === 0 ? '' : `${missing} of ${flat.length} not mapped`,
      quarantined === 0 ? '' : `${quarantined} quarantined`,
      peerToPeer === 'off' ? 'peer-to-peer off' : '',
    ].filter((note) => note !== '');
    return {
      title: name,
      note: notes.length === 0 ? 'all mapped' : notes.join(' · '),
      lanes: lanesIn(lanes),
      boxes: all.map(({ box }, index) => ({ ...box, lane: lanes[index] ?? 0 })),
    };
  });
}

/** Returns the box of a mapping of a target. */
export function targetBox(
  mapping: MappingStatusSnapshot,
  sub: SubMappingSnapshot | undefined,
  places: Places,
  seen: Map<string, number>,
): Box {
  const state = stateOf(mapping);
  const { region, start, end, code, errno, reason } = mapping;
  const short = state === 'quarantined' || state === 'revoked' ? undefined : (errno ?? code?.replace('ERR_', ''));
  return {
    key: numbered(seen, `${state === 'quarantined' ? state : 'target'} ${region}`),
    from: placeOf(places, start),
    to: placeOf(places, end),
    lane: 0,
    label: state === 'mapped' ? region : `${state}${short === undefined ? '' : ` · ${short}`} · ${region}`,
    look: `target ${state}`,
    start,
    facts: [
      ['State', stateSentence(state)],
      ...factsOf(mapping),
      ...(sub === undefined || state === 'quarantined'
        ? []
        : ([
            ['Devices may', sub.writable ? 'read and write' : 'read'],
            ['Backing', sub.backing],
          ] as const)),
      ...(code === undefined ? [] : ([['Code', code]] as const)),
      ...(errno === undefined ? [] : ([['errno', errno]] as const)),
      ...(reason === undefined ? [] : ([['Reason', reason]] as const)),
    ],
  };
}

/** Returns the box of a sub-mapping that a target was not given. */
export function absentBox(sub: SubMappingSnapshot, reason: string, places: Places, seen: Map<string, number>): Box {
  return {
    key: numbered(seen, `target ${sub.region}`),
    from: placeOf(places, sub.start),
    to: placeOf(places, sub.end),
    lane: 0,
    label: `not given · ${sub.region}`,
    look: 'target absent',
    start: sub.start,
    facts: [['State', stateSentence('absent')], ...factsOf(sub), ['Backing', sub.backing], ['Reason', reason]],
  };
}

/** Returns the facts that sub-mappings and mappings of targets have in common. */
export function factsOf({ start, end, region, kind }: SubMappingSnapshot | MappingStatusSnapshot): Fact[] {
  return [
    ['Addresses', `${start}..${end}`],
    ['Length', lengthText(BigInt(end) - BigInt(start))],
    ['Region', `${region} (${kind === 'ram' ? 'RAM' : 'device memory'})`],
  ];
}

/** Describes a state of a mapping. */
export function stateSentence(state: string): string {
  switch (state) {
    case 'mapped':
      return 'mapped: devices behind this target reach it';
    case 'failed':
      return 'failed: the target could not map it';
    case 'revoked':
      return 'revoked: the device of the memory has revoked the mapping';
    case 'skipped':
      return 'skipped: peer-to-peer is off for this target';
    case 'quarantined':
      return 'quarantined: it could not be unmapped, so devices may still reach it';
    default:
      return 'not given to the target';
  }
}

/** Returns the lane of each box: the first lane in which it overlaps no other box. */
export function lanesFor(ends: readonly (readonly [from: number, to: number])[]): number[] {
  const size = ends.reduce((most, [, to]) => Math.max(most, to), 0) + 1;
  // Each lane is a Fenwick tree over the starts: it returns the highest end of the boxes that start below a part.
  const lanes: Map<number, number>[] = [];
  return ends.map(([from, to]) => {
    let lane = lanes.findIndex((taken) => endBelow(taken, to) <= from);
    if (lane === -1) lane = lanes.push(new Map()) - 1;
    const taken = lanes[lane];
    for (let at = from + 1; at <= size; at += at & -at) taken?.set(at, Math.max(taken.get(at) ?? 0, to));
    return lane;
  });
}

/** Returns the highest end of the boxes in a lane that start below a part; 0 without such a box. */
export function endBelow(taken: ReadonlyMap<number, number>, part: number): number {
  let end = 0;
  for (let at = part; at > 0; at -= at & -at) end = Math.max(end, taken.get(at) ?? 0);
  return end;
}

/** Returns the number of lanes, at least one. */
export function lanesIn(lanes: readonly number[]): number {
  return lanes.reduce((most, lane) => Math.max(most, lane + 1), 1);
}

/** Appends a number to a key, to make it unique. */
export function numbered(seen: Map<string, number>, key: string): string {
  const number = seen.get(key) ?? 0;
  seen.set(key, number + 1);
  return `${key} ${number}`;
}

/** Returns the index of a boundary address on the axis. */
export function placeOf(places: Places, address: string | undefined): number {
  return places.get(address ?? '') ?? 0;
}

/** Formats an address in lower-case hexadecimal. */
export function hexOf(address: bigint): string {
  return `0x${address.toString(16)}`;
}
