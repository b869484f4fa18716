/**
 * Lays out the columns of the map for one snapshot: regions, flat map and targets.
 */
import type { MemorySnapshot } from '../../guest/inspect.ts';
import { type Places, partIndex } from './axis.ts';
import { type Column, commonFacts, numbered } from './box.ts';
import { regionColumn } from './region-column.ts';
import { targetColumns } from './target-columns.ts';

/** Returns all columns of the map. */
export function columnsOf(snapshot: MemorySnapshot, places: Places): Column[] {
  return [regionColumn(snapshot, places), flatColumn(snapshot, places), ...targetColumns(snapshot, places)];
}

function flatColumn({ flat }: MemorySnapshot, places: Places): Column {
  const seen = new Map<string, number>();
  return {
    title: 'Flat map',
    note: flat.length === 1 ? '1 sub-mapping' : `${flat.length} sub-mappings`,
    lanes: 1,
    boxes: flat.map((sub) => ({
      key: numbered(seen, `flat ${sub.region} ${sub.backing}`),
      from: partIndex(places, sub.start),
      to: partIndex(places, sub.end),
      lane: 0,
      label: sub.region,
      look: `flat ${sub.kind}${sub.writable ? '' : ' read-only'}`,
      start: sub.start,
      facts: [...commonFacts(sub), ['Devices may', sub.writable ? 'read and write' : 'read'], ['Backing', sub.backing]],
    })),
  };
}
