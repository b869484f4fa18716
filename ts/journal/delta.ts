/**
 * The difference between two snapshots of guest memory, as a journal line holds it.
 */
import {
  type MemorySnapshot,
  type RegionSnapshot,
  type MappingStatusSnapshot,
  type SubMappingSnapshot,
  type TargetSnapshot,
  quarantineOf,
} from '../guest/inspect.ts';

/** A change of a list: `added` replaces `removed` elements from index `at` of the old list on. */
export type ListChange<T> = readonly [at: number, removed: number, added: readonly T[]];

/** The changes from one snapshot to the next. Unchanged lists are left out. */
export interface SnapshotDelta {
  /** Changes of {@link MemorySnapshot.regions}. */
  readonly regions?: readonly ListChange<RegionSnapshot>[];
  /** Regions with changes of their mappings only. They are not in {@link SnapshotDelta.regions}. */
  readonly mappings?: readonly RegionDelta[];
  /** Changes of {@link MemorySnapshot.flat}. */
  readonly flat?: readonly ListChange<SubMappingSnapshot>[];
  /** All targets after the change. */
  readonly targets?: readonly TargetDelta[];
}

/** The changes of the mappings of a region. */
export interface RegionDelta {
  /** {@link RegionSnapshot.id} of the region. */
  readonly region: number;
  /** Changes of the list of its mappings. */
  readonly mappings: readonly ListChange<RegionSnapshot['mappings'][number]>[];
}

/** The changes of a DMA target. */
export interface TargetDelta extends Omit<TargetSnapshot, 'mappings'> {
  /** Index of the target in the list before. A new target has none. */
  readonly from?: number;
  /** Changes of the list of its mappings. */
  readonly mappings: readonly ListChange<MappingStatusSnapshot>[];
}

/**
 * Returns the snapshot after a change.
 *
 * @throws {RangeError} when the delta does not fit the snapshot
 * @internal
 */
export function applyDelta(before: MemorySnapshot, delta: SnapshotDelta): MemorySnapshot {
  const { regions, flat, targets } = delta;
  const regionsAfter = regions === undefined ? before.regions : applyHunks(before.regions, regions);
  const after = targets === undefined ? before.targets : targets.map((one) => applyTarget(before.targets, one));
  return {
    addressWidth: before.addressWidth,
    regions: delta.mappings === undefined ? regionsAfter : applyRegions(regionsAfter, delta.mappings),
    flat: flat === undefined ? before.flat : applyHunks(before.flat, flat),
    targets: after,
    quarantine: targets === undefined ? before.quarantine : quarantineOf(after),
  };
}

/** Applies changes of regions that affect only their mappings. @internal */
export function applyRegions(
  before: readonly RegionSnapshot[],
  deltas: readonly RegionDelta[],
): readonly RegionSnapshot[] {
  const changed = new Map(deltas.map((one) => [one.region, one.mappings]));
  const after = before.map((region) => {
    const hunks = changed.get(region.id);
    if (hunks === undefined) return region;
    changed.delete(region.id);
    return { ...region, mappings: applyHunks(region.mappings, hunks) };
  });
  for (const id of changed.keys())
    throw new RangeError(`delta.mappings: the state before has no region with the id ${id}`);
  return after;
}

/** Returns a target after a change. @internal */
export function applyTarget(
  before: readonly TargetSnapshot[],
  { from, name, peerToPeer, joined, mappings }: TargetDelta,
): TargetSnapshot {
  const was = from === undefined ? [] : before[from]?.mappings;
  if (was === undefined) throw new RangeError(`delta.targets: the state before has no target at index ${from}`);
  return { name, peerToPeer, joined, mappings: applyHunks(was, mappings) };
}

/** Returns a list after changes, which are in the order of their indexes. @internal */
export function applyHunks<T>(before: readonly T[], hunks: readonly ListChange<T>[]): readonly T[] {
  const after: T[] = [];
  let next = 0;
  for (const [at, removed, added] of hunks) {
    if (at < next) throw new RangeError(`delta: a hunk begins at index ${at}, before the end of the last one, ${next}`);
    if (at + removed > before.length) {
      throw new RangeError(`delta: a hunk ends at index ${at + removed} of a list of ${before.length}`);
    }
    for (; next < at; next++) after.push(before[next] as T); // within the list
    for (const one of added) after.push(one);
    next = at + removed;
  }
  for (; next < before.length; next++) after.push(before[next] as T);
  return after;
}
