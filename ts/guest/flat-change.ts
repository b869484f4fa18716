/**
 * From what the regions say to what has to be done: the difference between the flat map as it is and as it is to be,
 * in the touched ranges only.
 */
import { AddressRange } from '../address-range.ts';
import type { IntervalMap } from '../interval-map.ts';
import { advance, sameStore } from '../memory/backing.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { MemoryFile } from '../memory/memory-file.ts';

/** Sub-mappings by what happens to them, each in order of address. Those outside of the touched ranges are in none. @internal */
export interface FlatChange {
  readonly removed: readonly SubMapping[];
  readonly added: readonly SubMapping[];
  readonly unchanged: readonly SubMapping[];
  /** What regions get or lose of device memory, whether it is in the flat map or not. Default: nothing */
  readonly deviceMappings?: readonly DeviceMappingChange[];
}

/** A region gets mappings of device memory, or loses them. @internal */
export interface DeviceMappingChange {
  readonly file: MemoryFile;
  readonly region: number;
  /** How many it gets; negative for those it loses. */
  readonly by: number;
}

/**
 * @param before the flat map
 * @param touched where regions or their mappings have changed
 * @param resolve the sub-mappings that win in a range now
 * @returns the difference, and the flat map with it
 * @internal
 */
export function changeFlat(
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

/** Sub-mappings can't be cut: one that is touched at all is touched from end to end. */
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
 * Keeps the old sub-mappings that show just what is to be seen at their addresses, and gives what is left to be mapped:
 * memory that was cut once stays cut, since joining it again would take it from the devices for a moment.
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
  return { ...sub, range, store: advance(sub.store, start - sub.range.start), isInHostView: false };
}

function sameContent(a: SubMapping, b: SubMapping): boolean {
  return a.regionId === b.regionId && a.writable === b.writable && sameStore(a.store, b.store);
}
