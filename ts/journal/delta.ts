/**
 * The difference between two snapshots of guest memory: what a line of a journal holds. Applying it runs in the page of
 * `peerdma view` too: functions alone, which know nothing but one another.
 */
import {
  type MemorySnapshot,
  type RegionSnapshot,
  type StatusSnapshot,
  type SubMappingSnapshot,
  type TargetSnapshot,
  quarantineOf,
} from '../guest/inspect.ts';

/** At this index of the list before, so many go, and these come. */
export type Hunk<T> = readonly [at: number, removed: number, added: readonly T[]];

/** What becomes of a snapshot. Lists that stay are left out. */
export interface SnapshotDelta {
  /** Of {@link MemorySnapshot.regions}. */
  readonly regions?: readonly Hunk<RegionSnapshot>[];
  /** Regions of which nothing but their mappings changes; they are in no hunk of {@link SnapshotDelta.regions}. */
  readonly mappings?: readonly RegionDelta[];
  /** Of {@link MemorySnapshot.flat}. */
  readonly flat?: readonly Hunk<SubMappingSnapshot>[];
  /** All targets that there are then. */
  readonly targets?: readonly TargetDelta[];
}

/** What becomes of the mappings of a region. */
export interface RegionDelta {
  /** Its {@link RegionSnapshot.id}. */
  readonly region: number;
  /** Of its mappings before. */
  readonly mappings: readonly Hunk<RegionSnapshot['mappings'][number]>[];
}

/** What becomes of a target. */
export interface TargetDelta extends Omit<TargetSnapshot, 'mappings'> {
  /** Its index among the targets before; without it, it is new. */
  readonly from?: number;
  /** Of its mappings before. */
  readonly mappings: readonly Hunk<StatusSnapshot>[];
}

/**
 * The snapshot after a change.
 *
 * @throws {RangeError} where the delta is not one of this snapshot
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

/** @internal */
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

/** @internal */
export function applyTarget(
  before: readonly TargetSnapshot[],
  { from, name, peerToPeer, following, mappings }: TargetDelta,
): TargetSnapshot {
  const was = from === undefined ? [] : before[from]?.mappings;
  if (was === undefined) throw new RangeError(`delta.targets: the state before has no target at index ${from}`);
  return { name, peerToPeer, following, mappings: applyHunks(was, mappings) };
}

/** @internal */
export function applyHunks<T>(before: readonly T[], hunks: readonly Hunk<T>[]): readonly T[] {
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
