/**
 * Compares two states of guest memory. A state holds versions of the trees that guest memory itself uses. A comparison
 * reads only the parts that the two versions do not share.
 */
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { TargetMaps } from '../dma/target-mappings.ts';
import type { MappingStatus } from '../dma/target.ts';
import type { GuestAddressSpace } from '../guest/guest-address-space.ts';
import { mappingSnapshot, regionSnapshot, statusSnapshot, subMappingSnapshot } from '../guest/inspect.ts';
import type { MemoryMap } from '../guest/memory-map.ts';
import type { RegionState } from '../guest/region-state.ts';
import type { ListChange, RegionDelta, SnapshotDelta, TargetDelta } from './delta.ts';
import type { EntryChange } from '../tree-changes.ts';
import { type Difference, differenceOf } from './differences.ts';
import { NO_MAPS, statusChanges } from './status-changes.ts';

/** The state of guest memory at one moment. @internal */
export interface State {
  readonly map: MemoryMap;
  readonly targets: readonly TargetState[];
}

/** The state of a DMA target at one moment. @internal */
export interface TargetState {
  readonly mapper: DmaMapper;
  readonly joined: boolean;
  readonly maps: TargetMaps;
}

/** The difference between two states. @internal */
export interface Comparison {
  readonly regions: readonly EntryChange<RegionState>[];
  readonly flat: Difference<SubMapping>;
  /** The targets of the second state. `before` is `undefined` for a target that has joined. */
  readonly targets: readonly {
    readonly now: TargetState;
    readonly before: TargetState | undefined;
    readonly mappings: Difference<MappingStatus>;
  }[];
  readonly left: readonly TargetState[];
}

/** Returns the current state of guest memory. @internal */
export function stateOf(space: GuestAddressSpace): State {
  return {
    map: space.map,
    targets: [...space.mappers].map((mapper) => ({
      mapper,
      joined: mapper.joined,
      maps: mapper.maps(),
    })),
  };
}

/** Compares two states of one guest memory. @internal */
export function compare(before: State, now: State): Comparison {
  const known = new Map(before.targets.map((target) => [target.mapper, target]));
  const there = new Set(now.targets.map(({ mapper }) => mapper));
  return {
    regions: now.map.regionsSince(before.map),
    flat: differenceOf(now.map.flat.changesSince(before.map.flat)),
    targets: now.targets.map((target) => {
      const was = known.get(target.mapper);
      const changes = statusChanges(target.mapper, was?.maps ?? NO_MAPS, target.maps);
      return { now: target, before: was, mappings: differenceOf(changes) };
    }),
    left: before.targets.filter(({ mapper }) => !there.has(mapper)),
  };
}

/** Converts a comparison to the delta of a journal line; `undefined` if nothing has changed. @internal */
export function deltaOf({ regions, flat, targets, left }: Comparison, before: State): SnapshotDelta | undefined {
  const changed = targets.some(
    ({ now, before: was, mappings: changes }) => was?.joined !== now.joined || changes.hunks.length > 0,
  );
  const mappings = regions.filter(changesOnlyMappings).map(regionDelta);
  const whole = differenceOf(regions.filter((change) => !changesOnlyMappings(change))).hunks;
  const delta = {
    ...(whole.length === 0 ? {} : { regions: written(whole, (region) => regionSnapshot(region)) }),
    ...(mappings.length === 0 ? {} : { mappings }),
    ...(flat.hunks.length === 0 ? {} : { flat: written(flat.hunks, subMappingSnapshot) }),
    ...(changed || left.length > 0
      ? {
          targets: targets.map(({ now: { mapper, joined }, before: was, mappings: changes }): TargetDelta => {
            const { name, peerToPeer } = mapper;
            const hunks = written(changes.hunks, statusSnapshot);
            const facts = { name, peerToPeer, joined, mappings: hunks };
            return was === undefined ? facts : { from: before.targets.indexOf(was), ...facts };
          }),
        }
      : {}),
  };
  return Object.keys(delta).length === 0 ? undefined : delta;
}

/** A change of only the mappings of a region. A line lists the changed mappings alone then. */
type MappingsChange = Required<EntryChange<RegionState>>;

function changesOnlyMappings(change: EntryChange<RegionState>): change is MappingsChange {
  const { removed: was, added: is } = change;
  if (was === undefined || is === undefined || was.mappings === is.mappings) return false;
  return was.at === is.at && was.writable === is.writable;
}

function regionDelta({ removed: was, added: is }: MappingsChange): RegionDelta {
  const { hunks } = differenceOf(is.mappings.changesSince(was.mappings));
  return { region: is.id, mappings: written(hunks, mappingSnapshot) };
}

function written<T, U>(hunks: readonly ListChange<T>[], write: (one: T) => U): ListChange<U>[] {
  return hunks.map(([at, removed, added]) => [at, removed, added.map(write)]);
}
