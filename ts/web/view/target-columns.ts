/**
 * The columns of the DMA targets.
 */
import type { MemorySnapshot, MappingStatusSnapshot, SubMappingSnapshot, TargetSnapshot } from '../../guest/inspect.ts';
import { stateOf, whyAbsent } from '../../guest/target-view.ts';
import { type Places, partIndex } from './axis.ts';
import { type Box, type Column, type Fact, commonFacts, numbered } from './box.ts';
import { laneCount, lanesFor } from './lanes.ts';

/** Name and description of each state of a mapping. */
const STATES: Readonly<Record<ReturnType<typeof stateOf>, readonly [name: string, text: string]>> = {
  mapped: ['mapped', 'devices behind this target reach it'],
  failed: ['failed', 'the target could not map it'],
  revoked: ['revoked', 'the device of the memory has revoked the mapping'],
  skipped: ['skipped', 'the target does not accept it, or the policy excludes it'],
  quarantined: ['quarantined', 'it could not be unmapped, so devices may still reach it'],
};

/** Returns a column for each DMA target. */
export function targetColumns({ targets, flat }: MemorySnapshot, places: Places): Column[] {
  const shown = new Map(flat.map((sub) => [sub.start, sub]));
  return targets.map((target) => targetColumn(target, flat, shown, places));
}

function targetColumn(
  target: TargetSnapshot,
  flat: MemorySnapshot['flat'],
  shown: ReadonlyMap<string, SubMappingSnapshot>,
  places: Places,
): Column {
  const { name, mappings, joined, peerToPeer } = target;
  const there = new Set(mappings.map(({ start }) => start));
  const absent = flat.filter(({ start }) => !there.has(start));
  const seen = new Map<string, number>();
  const boxes = [
    ...mappings.map((mapping) => mappingBox(mapping, shown.get(mapping.start), places, seen)),
    ...absent.map((sub) => absentBox(sub, whyAbsent(target), places, seen)),
  ];
  const lanes = lanesFor(boxes.map(({ from, to }) => [from, to] as const));
  const quarantined = mappings.filter(({ state }) => state === 'quarantined').length;
  const missing = boxes.filter(({ look }) => !['target mapped', 'target quarantined'].includes(look)).length;
  const notes = [
    joined ? '' : 'left',
    missing === 0 ? '' : `${missing} of ${flat.length} not mapped`,
    quarantined === 0 ? '' : `${quarantined} quarantined`,
    peerToPeer === 'off' ? 'peer-to-peer off' : '',
  ].filter((note) => note !== '');
  return {
    title: name,
    note: notes.length === 0 ? 'all mapped' : notes.join(' · '),
    lanes: laneCount(lanes),
    boxes: boxes.map((box, index) => ({ ...box, lane: lanes[index] ?? 0 })),
  };
}

function mappingBox(
  mapping: MappingStatusSnapshot,
  sub: SubMappingSnapshot | undefined,
  places: Places,
  seen: Map<string, number>,
): Box {
  const state = stateOf(mapping);
  const { region, start, end, code, errno, reason } = mapping;
  const error = state === 'quarantined' || state === 'revoked' ? undefined : (errno ?? code?.replace('ERR_', ''));
  const [stateName, text] = STATES[state];
  return {
    key: numbered(seen, `${state === 'quarantined' ? state : 'target'} ${region}`),
    from: partIndex(places, start),
    to: partIndex(places, end),
    lane: 0,
    label: state === 'mapped' ? region : [stateName, error, region].filter((part) => part !== undefined).join(' · '),
    look: `target ${state}`,
    start,
    facts: [
      ['State', `${stateName}: ${text}`],
      ...commonFacts(mapping),
      ...(sub === undefined || state === 'quarantined'
        ? []
        : ([
            ['Devices may', sub.writable ? 'read and write' : 'read'],
            ['Backing', sub.backing],
          ] as const)),
      ...knownFacts({ Code: code, errno, Reason: reason }),
    ],
  };
}

/** Returns the box of a sub-mapping that a target was not given. */
function absentBox(sub: SubMappingSnapshot, reason: string, places: Places, seen: Map<string, number>): Box {
  return {
    key: numbered(seen, `target ${sub.region}`),
    from: partIndex(places, sub.start),
    to: partIndex(places, sub.end),
    lane: 0,
    label: `not given · ${sub.region}`,
    look: 'target absent',
    start: sub.start,
    facts: [['State', 'not given to the target'], ...commonFacts(sub), ['Backing', sub.backing], ['Reason', reason]],
  };
}

/** Returns the facts that have a value. */
function knownFacts(facts: Readonly<Record<string, string | undefined>>): Fact[] {
  return Object.entries(facts).flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const]));
}
