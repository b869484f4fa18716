/**
 * The difference between two flat maps, in the ranges that a change has touched.
 */
import { AddressRange } from '../address-range.ts';
import type { IntervalMap } from '../interval-map.ts';
import { advance, isSameMemory } from '../memory/backing.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { SharedFile } from '../memory/shared-file.ts';

/** The sub-mappings in the touched ranges, each list in order of address. @internal */
export interface FlatChange {
  readonly removed: readonly SubMapping[];
  readonly added: readonly SubMapping[];
  readonly unchanged: readonly SubMapping[];
  /** Mappings of device memory that are added to or removed from regions, active or not. Default: none */
  readonly deviceMappings?: readonly DeviceMappingChange[];
}

/** The change of the number of mappings of a device's file in a region. @internal */
export interface DeviceMappingChange {
  readonly file: SharedFile;
  readonly region: number;
  /** Negative if mappings are removed. */
  readonly by: number;
}

/**
 * @param before the flat map
 * @param touched where regions or their mappings have changed
 * @param resolve the sub-mappings that win in a range after the change
 * @returns the difference, and the new flat map
 * @internal
 */
export function diffFlat(
  before: IntervalMap<SubMapping>,
  touched: readonly AddressRange[],
  resolve: (range: AddressRange) => SubMapping[],
): { change: FlatChange; flat: IntervalMap<SubMapping> } {
  const removed: SubMapping[] = [];
  const added: SubMapping[] = [];
  const unchanged: SubMapping[] = [];
  for (const range of merge(touched.map((one) => widen(before, one)))) {
    const old = before.overlapping(range);
    const { kept, rest } = keep(old, resolve(range));
    for (const sub of old) (kept.has(sub) ? unchanged : removed).push(sub);
    for (const sub of rest) added.push(sub);
  }
  const flat = before.clone();
  for (const sub of removed) flat.remove(sub);
  for (const sub of added) flat.insert(sub);
  return { change: { removed, added, unchanged }, flat };
}

/** Extends a range to whole sub-mappings: a sub-mapping cannot be cut. */
function widen(before: IntervalMap<SubMapping>, range: AddressRange): AddressRange {
  const old = before.overlapping(range);
  const first = old[0];
  const last = old.at(-1);
  const start = first !== undefined && first.range.start < range.start ? first.range.start : range.start;
  const end = last !== undefined && last.range.end > range.end ? last.range.end : range.end;
  return AddressRange.between(start, end);
}

/** The same addresses as sorted ranges that neither overlap nor adjoin. */
function merge(ranges: AddressRange[]): AddressRange[] {
  const merged: AddressRange[] = [];
  for (const range of ranges.sort((a, b) => (a.start < b.start ? -1 : 1))) {
    const last = merged.at(-1);
    if (last === undefined || last.end < range.start) merged.push(range);
    else if (last.end < range.end) merged[merged.length - 1] = AddressRange.between(last.start, range.end);
  }
  return merged;
}

/**
 * Keeps the old sub-mappings whose memory wins at their addresses. Returns the rest of the new ones. Memory that was
 * cut before stays cut: joining it would unmap it for a moment.
 */
function keep(old: readonly SubMapping[], runs: readonly SubMapping[]): { kept: Set<SubMapping>; rest: SubMapping[] } {
  const kept = new Set<SubMapping>();
  const rest: SubMapping[] = [];
  let next = 0; // both lists are sorted, so one pass over each is enough
  for (const run of runs) {
    let from = run.range.start;
    for (let sub = old[next]; sub !== undefined && sub.range.start < run.range.end; sub = old[++next]) {
      const { start, end } = sub.range;
      if (start < from || end > run.range.end || !sameContent(sub, part(run, start, end))) continue;
      kept.add(sub);
      if (from < start) rest.push(part(run, from, start));
      from = end;
    }
    if (from < run.range.end) rest.push(part(run, from, run.range.end));
  }
  return { kept, rest };
}

function part(sub: SubMapping, start: bigint, end: bigint): SubMapping {
  if (start === sub.range.start && end === sub.range.end) return sub;
  const range = AddressRange.between(start, end);
  return { ...sub, range, memory: advance(sub.memory, start - sub.range.start), isInHostView: false };
}

function sameContent(a: SubMapping, b: SubMapping): boolean {
  return a.regionId === b.regionId && a.writable === b.writable && isSameMemory(a.memory, b.memory);
}
