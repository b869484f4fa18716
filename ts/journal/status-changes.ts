/**
 * Finds the mappings of a target whose status differs between two versions of its records.
 */
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { MappingFailure } from '../dma/mapping-failure.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { TargetMaps } from '../dma/target-mappings.ts';
import type { MappingStatus } from '../dma/target.ts';
import type { PeerDmaError } from '../errors.ts';
import { IntervalMap } from '../interval-map.ts';
import type { EntryChange } from '../tree-changes.ts';

/** The records of a target that has not joined. @internal */
export const NO_MAPS: TargetMaps = {
  tracked: new IntervalMap(),
  failed: new IntervalMap(),
  revoked: new IntervalMap(),
  quarantined: new IntervalMap(),
};

/** A change with the address that orders it among changes at one index. */
interface PlacedChange extends EntryChange<MappingStatus> {
  readonly start: bigint;
}

/**
 * Returns the changes of the list {@link TargetStatus.all}, in its order. It is by address, and a quarantined mapping
 * is after the record that begins at the same address.
 *
 * @internal
 */
export function statusChanges(
  mapper: DmaMapper,
  before: TargetMaps,
  now: TargetMaps,
): readonly EntryChange<MappingStatus>[] {
  const changes = [...trackedChanges(mapper, before, now), ...errorChanges(mapper, before, now)];
  const all = [...changes, ...quarantineChanges(mapper, before, now)];
  // The sort is stable, so quarantined mappings stay last among changes at one address.
  return all.sort((a, b) => a.index - b.index || (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
}

function trackedChanges(mapper: DmaMapper, before: TargetMaps, now: TargetMaps): PlacedChange[] {
  return now.tracked.changesSince(before.tracked).map(({ index, removed, added }) => {
    const was = removed && mapper.status.tracked(removed, errorIn(before, removed));
    const is = added && mapper.status.tracked(added, errorIn(now, added));
    const { start } = (added ?? (removed as SubMapping)).range;
    return placed(index + quarantinedBelow(before, start), start, was, is);
  });
}

/** Returns the changes of sub-mappings in both versions. They failed, were revoked or were mapped again in between. */
function errorChanges(mapper: DmaMapper, before: TargetMaps, now: TargetMaps): PlacedChange[] {
  const changes = [...now.failed.changesSince(before.failed), ...now.revoked.changesSince(before.revoked)];
  const subs = new Set(
    changes.flatMap(({ removed, added }) => [removed, added].flatMap((failure) => failure?.sub ?? [])),
  );
  return [...subs].flatMap((sub) => {
    if (!isTracked(before, sub) || !isTracked(now, sub)) return [];
    const [was, is] = [errorIn(before, sub), errorIn(now, sub)].map((error) => mapper.status.tracked(sub, error));
    if (was === undefined || is === undefined || isSame(was, is)) return [];
    const { start } = sub.range;
    return [placed(before.tracked.countBelow(start) + quarantinedBelow(before, start), start, was, is)];
  });
}

function quarantineChanges(mapper: DmaMapper, before: TargetMaps, now: TargetMaps): PlacedChange[] {
  const status = (failure: MappingFailure | undefined) => failure && mapper.status.quarantined(failure);
  return now.quarantined.changesSince(before.quarantined).map(({ index, removed, added }) => {
    const { start } = (added ?? (removed as MappingFailure)).range;
    return placed(before.tracked.countBelow(start + 1n) + index, start, status(removed), status(added));
  });
}

function placed(
  index: number,
  start: bigint,
  removed: MappingStatus | undefined,
  added: MappingStatus | undefined,
): PlacedChange {
  return { index, start, ...(removed === undefined ? {} : { removed }), ...(added === undefined ? {} : { added }) };
}

/** Returns the error of a sub-mapping that the target has not mapped; `undefined` for a mapped one. */
function errorIn({ failed, revoked }: TargetMaps, sub: SubMapping): PeerDmaError | undefined {
  for (const failures of [failed, revoked]) {
    const failure = failures.startingAt(sub.range.start);
    if (failure?.sub === sub) return failure.error;
  }
  return undefined;
}

function isTracked({ tracked }: TargetMaps, sub: SubMapping): boolean {
  return tracked.startingAt(sub.range.start) === sub;
}

function quarantinedBelow({ quarantined }: TargetMaps, address: bigint): number {
  return quarantined.countBelow(address);
}

function isSame(a: MappingStatus, b: MappingStatus): boolean {
  return (
    a.range === b.range && // one object: the sub-mapping, and so its other fields, are the same
    a.state === b.state &&
    a.code === b.code &&
    a.errno === b.errno &&
    a.reason === b.reason
  );
}
