/**
 * Finds what has changed in guest memory since it was looked at last. States are kept as the values that guest memory itself
 * works with: what has not changed is the same object then, so that looking costs little where much is mapped.
 */
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { MappingStatus } from '../dma/target.ts';
import type { AddressSpace } from '../guest/address-space.ts';
import { regionSnapshot, statusSnapshot, subMappingSnapshot } from '../guest/inspect.ts';
import type { RegionState } from '../guest/region-state.ts';
import type { Hunk, SnapshotDelta, TargetDelta } from './delta.ts';

/** Guest memory at one moment. @internal */
export interface State {
  readonly regions: readonly RegionState[];
  readonly flat: readonly SubMapping[];
  readonly targets: readonly TargetState[];
}

/** @internal */
export interface TargetState {
  readonly mapper: DmaMapper;
  readonly following: boolean;
  readonly status: readonly MappingStatus[];
}

/** What has gone from a list, and what has come. @internal */
export interface Difference<T> {
  readonly hunks: readonly Hunk<T>[];
  readonly gone: readonly T[];
  readonly come: readonly T[];
}

/** The difference between two states. @internal */
export interface Comparison {
  readonly regions: Difference<RegionState>;
  readonly flat: Difference<SubMapping>;
  /** Those that are there now. `before` is missing where the target has joined. */
  readonly targets: readonly {
    readonly now: TargetState;
    readonly before: TargetState | undefined;
    readonly mappings: Difference<MappingStatus>;
  }[];
  readonly left: readonly TargetState[];
}

/** @internal */
export function stateOf(space: AddressSpace): State {
  return {
    regions: space.map.regions(),
    flat: space.map.flat.values(),
    targets: [...space.mappers].map((mapper) => ({
      mapper,
      following: mapper.following,
      status: mapper.status(),
    })),
  };
}

/** @internal */
export function compare(before: State, now: State): Comparison {
  const same = (a: unknown, b: unknown): boolean => a === b;
  const known = new Map(before.targets.map((target) => [target.mapper, target]));
  const there = new Set(now.targets.map(({ mapper }) => mapper));
  return {
    regions: difference(before.regions, now.regions, same, (a, b) => a.id - b.id),
    flat: difference(before.flat, now.flat, same, byStart),
    targets: now.targets.map((target) => {
      const was = known.get(target.mapper);
      return { now: target, before: was, mappings: difference(was?.status ?? [], target.status, sameStatus, byStart) };
    }),
    left: before.targets.filter(({ mapper }) => !there.has(mapper)),
  };
}

/** What a line of a journal says of it; `undefined` where nothing has changed. @internal */
export function deltaOf({ regions, flat, targets, left }: Comparison, before: State): SnapshotDelta | undefined {
  const changed = targets.some(
    ({ now, before: was, mappings }) => was?.following !== now.following || mappings.hunks.length > 0,
  );
  const delta = {
    ...(regions.hunks.length === 0 ? {} : { regions: written(regions.hunks, (region) => regionSnapshot(region)) }),
    ...(flat.hunks.length === 0 ? {} : { flat: written(flat.hunks, subMappingSnapshot) }),
    ...(changed || left.length > 0
      ? {
          targets: targets.map(({ now: { mapper, following }, before: was, mappings }): TargetDelta => {
            const { name, peerToPeer } = mapper;
            const hunks = written(mappings.hunks, statusSnapshot);
            const facts = { name, peerToPeer, following, mappings: hunks };
            return was === undefined ? facts : { from: before.targets.indexOf(was), ...facts };
          }),
        }
      : {}),
  };
  return Object.keys(delta).length === 0 ? undefined : delta;
}

/** One pass over two lists that are in order; lists that are not give more than what has changed, and nothing wrong. */
function difference<T>(
  before: readonly T[],
  now: readonly T[],
  same: (a: T, b: T) => boolean,
  order: (a: T, b: T) => number,
): Difference<T> {
  const hunks: [number, number, T[]][] = [];
  const gone: T[] = [];
  const come: T[] = [];
  let open: [number, number, T[]] | undefined;
  let at = 0;
  let next = 0;
  while (at < before.length || next < now.length) {
    const was = before[at];
    const is = now[next];
    if (was !== undefined && is !== undefined && same(was, is)) {
      open = undefined;
      at++;
      next++;
      continue;
    }
    if (open === undefined) hunks.push((open = [at, 0, []]));
    if (was !== undefined && (is === undefined || order(was, is) <= 0)) {
      gone.push(was);
      open[1]++;
      at++;
    } else if (is !== undefined) {
      come.push(is);
      open[2].push(is);
      next++;
    }
  }
  return { hunks, gone, come };
}

function written<T, U>(hunks: readonly Hunk<T>[], write: (one: T) => U): Hunk<U>[] {
  return hunks.map(([at, removed, added]) => [at, removed, added.map(write)]);
}

function byStart<T extends { readonly range: { readonly start: bigint } }>(a: T, b: T): number {
  return a.range.start < b.range.start ? -1 : a.range.start > b.range.start ? 1 : 0;
}

function sameStatus(a: MappingStatus, b: MappingStatus): boolean {
  return (
    a.range === b.range && // of the same sub-mapping, which has the rest
    a.state === b.state &&
    a.code === b.code &&
    a.errno === b.errno &&
    a.reason === b.reason
  );
}
