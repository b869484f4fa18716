/**
 * Which statuses of a target's mappings have changed since it was looked at last.
 */
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { Held, HeldRecords } from '../dma/holdings.ts';
import type { MappingStatus } from '../dma/target.ts';
import type { PeerDmaError } from '../errors.ts';
import { IntervalMap } from '../interval-map.ts';
import type { EntryChange } from '../tree-changes.ts';

/** A target that was not there. @internal */
export const NO_RECORDS: HeldRecords = { held: new IntervalMap(), quarantined: [], revoked: new IntervalMap() };

/** A change, and where among equal addresses it belongs. */
interface PlacedChange extends EntryChange<MappingStatus> {
  readonly start: bigint;
}

/**
 * The changes of what {@link DmaMapper.status} lists, in its order: by address, and what is in quarantine after the
 * record that begins at the same address.
 *
 * @internal
 */
export function statusChanges(
  mapper: DmaMapper,
  before: HeldRecords,
  now: HeldRecords,
): readonly EntryChange<MappingStatus>[] {
  const changes = [...heldChanges(mapper, before, now), ...revocations(mapper, before, now)];
  const all = [...changes, ...quarantineChanges(mapper, before, now)];
  // Stable: quarantines come last of those that are at one place.
  return all.sort((a, b) => a.index - b.index || (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
}

function heldChanges(mapper: DmaMapper, before: HeldRecords, now: HeldRecords): PlacedChange[] {
  const changes: PlacedChange[] = [];
  for (const { index, removed, added } of now.held.changesSince(before.held)) {
    const was = removed && statusThen(mapper, before, removed);
    const is = added && mapper.statusThen(added, revocationIn(now, added));
    if (was !== undefined && is !== undefined && isSame(was, is)) continue; // unmapped, and mapped again
    const { start } = (added ?? (removed as Held)).range;
    changes.push(placed(index + quarantinedBelow(before, start), start, was, is));
  }
  return changes;
}

/** What has become void, or is no longer, though its record is the same. */
function revocations(mapper: DmaMapper, before: HeldRecords, now: HeldRecords): PlacedChange[] {
  return now.revoked.changesSince(before.revoked).flatMap(({ removed, added }) => {
    const held = (added ?? removed)?.held;
    if (held === undefined || !isIn(before, held) || !isIn(now, held)) return [];
    const { start } = held.range;
    const index = before.held.countBelow(start) + quarantinedBelow(before, start);
    const [was, is] = [before, now].map((records) => mapper.statusThen(held, revocationIn(records, held)));
    return was !== undefined && is !== undefined && isSame(was, is) ? [] : [placed(index, start, was, is)];
  });
}

function quarantineChanges(mapper: DmaMapper, before: HeldRecords, now: HeldRecords): PlacedChange[] {
  const [old, young] = [new Set(before.quarantined), new Set(now.quarantined)];
  const indexAt = (start: bigint): number => before.held.countBelow(start + 1n);
  return [
    ...before.quarantined.flatMap((held, place): PlacedChange[] => {
      const { start } = held.range;
      return young.has(held) ? [] : [placed(indexAt(start) + place, start, mapper.statusOf(held), undefined)];
    }),
    ...now.quarantined.flatMap((held): PlacedChange[] => {
      const { start } = held.range;
      const place = quarantinedBelow(before, start + 1n);
      return old.has(held) ? [] : [placed(indexAt(start) + place, start, undefined, mapper.statusOf(held))];
    }),
  ];
}

function placed(
  index: number,
  start: bigint,
  removed: MappingStatus | undefined,
  added: MappingStatus | undefined,
): PlacedChange {
  return { index, start, ...(removed === undefined ? {} : { removed }), ...(added === undefined ? {} : { added }) };
}

/** The status that a record had when it was looked at: only what was mapped gets into quarantine. */
function statusThen(mapper: DmaMapper, then: HeldRecords, held: Held): MappingStatus {
  const { error: _error, ...mapped } = held;
  const record: Held = held.state === 'quarantined' ? { ...mapped, state: 'mapped' } : held;
  return mapper.statusThen(record, revocationIn(then, held));
}

function revocationIn({ revoked }: HeldRecords, held: Held): PeerDmaError | undefined {
  const found = revoked.startingAt(held.range.start);
  return found?.held === held ? found.error : undefined;
}

function isIn({ held }: HeldRecords, one: Held): boolean {
  return held.startingAt(one.range.start) === one;
}

function quarantinedBelow({ quarantined }: HeldRecords, address: bigint): number {
  const at = quarantined.findIndex(({ range }) => range.start >= address);
  return at === -1 ? quarantined.length : at;
}

function isSame(a: MappingStatus, b: MappingStatus): boolean {
  return (
    a.range === b.range && // of the same sub-mapping, which has the rest
    a.state === b.state &&
    a.code === b.code &&
    a.errno === b.errno &&
    a.reason === b.reason
  );
}
