/**
 * What stands in the columns of a page for one snapshot: regions, what is to be seen, and each target. Runs in the page:
 * functions alone, which know nothing but one another and what the other modules of the page have.
 */
import type { MemorySnapshot, RegionSnapshot, StatusSnapshot, SubMappingSnapshot } from '../../guest/inspect.ts';
import { backingAt, byPrecedenceIn } from '../../guest/layers.ts';
import { stateOf, whyAbsent } from '../../guest/target-view.ts';
import { humanLength } from './words.ts';

/** Something at addresses. */
export interface Box {
  /** The same box at another moment has the same. */
  readonly key: string;
  /** The first part of the axis, and the one after the last. */
  readonly from: number;
  readonly to: number;
  /** Beside which others it stands, from the left. */
  readonly lane: number;
  readonly label: string;
  /** Classes that say how it looks. */
  readonly look: string;
  readonly start: string;
  /** What there is to be known of it, in order. */
  readonly facts: readonly Fact[];
}

/** One thing to be known, and its name. */
export type Fact = readonly [name: string, value: string];

/** A column of the page. */
export interface Column {
  readonly title: string;
  readonly note: string;
  readonly lanes: number;
  readonly boxes: readonly Box[];
}

/** Where on the axis each address is. */
export type Places = ReadonlyMap<string, number>;

/** All columns of a page. */
export function columnsOf(snapshot: MemorySnapshot, places: Places): Column[] {
  return [regionColumn(snapshot, places), flatColumn(snapshot, places), ...targetColumns(snapshot, places)];
}

/** Regions, each in pieces that are to be seen, hidden, or for the VMM to answer. */
export function regionColumn({ regions }: MemorySnapshot, places: Places): Column {
  const active = regions.filter(({ range }) => range !== undefined);
  const ends = active.map(({ range }) => [placeOf(places, range?.start), placeOf(places, range?.end)] as const);
  const tops: (RegionSnapshot | undefined)[] = [];
  for (const region of byPrecedenceIn(active).reverse()) {
    const [from, to] = ends[active.indexOf(region)] ?? [0, 0];
    for (let part = from; part < to; part++) tops[part] = region;
  }
  const lanes = lanesFor(ends);
  const addresses = [...places.keys()];
  const idle = regions.length - active.length;
  return {
    title: 'Regions',
    note: idle === 0 ? 'by priority' : `${idle} not active`,
    lanes: Math.max(1, ...lanes.map((lane) => lane + 1)),
    boxes: active.flatMap((region, index) => {
      const [from, to] = ends[index] ?? [0, 0];
      return regionBoxes({ region, from, to, lane: lanes[index] ?? 0, tops, places, addresses });
    }),
  };
}

/** An active region on the axis. */
export interface PlacedRegion {
  readonly region: RegionSnapshot;
  readonly from: number;
  readonly to: number;
  readonly lane: number;
  /** Which region is to be seen, by part of the axis. */
  readonly tops: readonly (RegionSnapshot | undefined)[];
  readonly places: Places;
  /** Where each part of the axis begins. */
  readonly addresses: readonly string[];
}

/** The pieces of one region. */
export function regionBoxes({ region, from, to, lane, tops, places, addresses }: PlacedRegion): Box[] {
  const { id, name, kind, priority, range, mappings } = region;
  const base = BigInt(range?.start ?? '0x0');
  const memory: (string | undefined)[] = [];
  for (const mapping of mappings) {
    const first = placeOf(places, hexOf(base + BigInt(mapping.start)));
    const last = placeOf(places, hexOf(base + BigInt(mapping.end)));
    for (let part = first; part < last; part++) {
      const by = BigInt(addresses[part] ?? '0x0') - base - BigInt(mapping.start);
      memory[part] = backingAt(mapping.backing, by);
    }
  }
  const boxes: Box[] = [];
  let part = from;
  while (part < to) {
    const top = tops[part];
    const has = memory[part] !== undefined;
    const begun = part;
    while (part < to && tops[part] === top && (memory[part] !== undefined) === has) part++;
    const hidden = top !== region;
    const start = addresses[begun] ?? '0x0';
    const end = addresses[part] ?? '0x0';
    boxes.push({
      key: `region ${id} ${boxes.length}`,
      from: begun,
      to: part,
      lane,
      label: hidden ? `hidden · ${name}` : has ? name : `no memory · ${name}`,
      look: `region ${kind} ${hidden ? 'hidden' : has ? 'shown' : 'answered'}${begun === from ? ' first' : ''}${part === to ? ' last' : ''}`,
      start,
      facts: [
        ['Region', name],
        ['Addresses', `${start}..${end}`],
        ['Length', humanLength(BigInt(end) - BigInt(start))],
        ['All of it', `${range?.start}..${range?.end}`],
        ['Kind', kind === 'ram' ? 'RAM' : 'device memory'],
        ['Priority', String(priority)],
        ...(hidden && top !== undefined ? ([['Hidden by', `"${top.name}" (priority ${top.priority})`]] as const) : []),
        ['Backing', memory[begun] ?? 'none: the VMM answers'],
      ],
    });
  }
  return boxes;
}

/** What is to be seen at each address. */
export function flatColumn({ flat }: MemorySnapshot, places: Places): Column {
  const seen = new Map<string, number>();
  return {
    title: 'Memory map',
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

/** A column for each target. */
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
    const kept = mappings.filter(({ state }) => state === 'quarantined').length;
    const missing = all.filter(({ box }) => !['target mapped', 'target quarantined'].includes(box.look)).length;
    const notes = [
      following ? '' : 'is to leave',
      missing === 0 ? '' : `misses ${missing} of ${flat.length}`,
      kept === 0 ? '' : `keeps ${kept}`,
      peerToPeer === 'off' ? 'peer-to-peer off' : '',
    ].filter((note) => note !== '');
    return {
      title: name,
      note: notes.length === 0 ? 'has all of it' : notes.join(' · '),
      lanes: Math.max(1, ...lanes.map((lane) => lane + 1)),
      boxes: all.map(({ box }, index) => ({ ...box, lane: lanes[index] ?? 0 })),
    };
  });
}

/** How a sub-mapping stands with a target. */
export function targetBox(
  mapping: StatusSnapshot,
  sub: SubMappingSnapshot | undefined,
  places: Places,
  seen: Map<string, number>,
): Box {
  const state = stateOf(mapping);
  const { region, start, end, code, errno, reason } = mapping;
  const short = state === 'quarantined' || state === 'void' ? undefined : (errno ?? code?.replace('ERR_', ''));
  return {
    key: numbered(seen, `${state === 'quarantined' ? state : 'target'} ${region}`),
    from: placeOf(places, start),
    to: placeOf(places, end),
    lane: 0,
    label: state === 'mapped' ? region : `${stateWord(state)}${short === undefined ? '' : ` · ${short}`} · ${region}`,
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

/** Memory that a target was not given. */
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

/** What sub-mappings and the mappings of targets have in common. */
export function factsOf({ start, end, region, kind }: SubMappingSnapshot | StatusSnapshot): Fact[] {
  return [
    ['Addresses', `${start}..${end}`],
    ['Length', humanLength(BigInt(end) - BigInt(start))],
    ['Region', `${region} (${kind === 'ram' ? 'RAM' : 'device memory'})`],
  ];
}

/** A state in a word, beside the name of what it is the state of. */
export function stateWord(state: string): string {
  return state === 'failed' ? 'missing' : state === 'skipped' ? 'not wanted' : state;
}

/** A state in a few words. */
export function stateSentence(state: string): string {
  switch (state) {
    case 'mapped':
      return 'mapped: devices behind this target reach it';
    case 'failed':
      return 'missing: the target could not map it';
    case 'void':
      return 'void: the memory’s device has taken it away since it was mapped';
    case 'skipped':
      return 'not wanted: peer-to-peer is off for this target';
    case 'quarantined':
      return 'quarantined: it could not be unmapped, so devices may still reach it';
    default:
      return 'not given to the target';
  }
}

/** Beside which others each stands: the first lane in which nothing is in its way. */
export function lanesFor(ends: readonly (readonly [from: number, to: number])[]): number[] {
  const lanes: (readonly [number, number])[][] = [];
  return ends.map((one) => {
    let lane = lanes.findIndex((taken) => taken.every(([from, to]) => to <= one[0] || from >= one[1]));
    if (lane === -1) lane = lanes.push([]) - 1;
    lanes[lane]?.push(one);
    return lane;
  });
}

/** A key that was not used before. */
export function numbered(seen: Map<string, number>, key: string): string {
  const number = seen.get(key) ?? 0;
  seen.set(key, number + 1);
  return `${key} ${number}`;
}

/** Where on the axis an address is. */
export function placeOf(places: Places, address: string | undefined): number {
  return places.get(address ?? '') ?? 0;
}

/** Lower-case hexadecimal. */
export function hexOf(address: bigint): string {
  return `0x${address.toString(16)}`;
}
