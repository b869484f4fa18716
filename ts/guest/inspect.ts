/**
 * The state of guest memory as plain data.
 */
import { type AddressRange, hex } from '../address-range.ts';
import type { MappingStatus, MemoryKind } from '../dma/target.ts';
import type { Store } from '../memory/backing.ts';
import type { AddressSpace } from './address-space.ts';

/** A range as hexadecimal strings; `end` is one past the last address. */
export interface RangeSnapshot {
  readonly start: string;
  readonly end: string;
}

/** What {@link GuestMemory.inspect} gives; `JSON.stringify` takes it. */
export interface MemorySnapshot {
  /** All regions, active or not, the oldest first. */
  readonly regions: readonly RegionSnapshot[];
  /** What is to be seen at each address, in order. */
  readonly flat: readonly SubMappingSnapshot[];
  readonly targets: readonly TargetSnapshot[];
  /** Ranges that a target would not unmap: see {@link MappingStatus}. */
  readonly quarantine: readonly (StatusSnapshot & { readonly target: string })[];
}

export interface RegionSnapshot {
  readonly name: string;
  readonly kind: MemoryKind;
  readonly priority: number;
  readonly length: string;
  readonly active: boolean;
  /** Guest-physical addresses while it is active. */
  readonly range?: RangeSnapshot;
  readonly writable: boolean;
  /** Ranges are offsets within the region. */
  readonly mappings: readonly (RangeSnapshot & { readonly backing: string; readonly writable: boolean })[];
}

export interface SubMappingSnapshot extends RangeSnapshot {
  readonly region: string;
  readonly kind: MemoryKind;
  readonly writable: boolean;
  /** `NAME+OFFSET` of a file, or `private`. */
  readonly backing: string;
}

export interface TargetSnapshot {
  readonly name: string;
  readonly mappings: readonly StatusSnapshot[];
}

export interface StatusSnapshot extends RangeSnapshot {
  readonly region: string;
  readonly kind: MemoryKind;
  readonly state: MappingStatus['state'];
  readonly code?: string;
  readonly errno?: string;
  readonly reason?: string;
}

/** @internal */
export function snapshot(space: AddressSpace): MemorySnapshot {
  const targets = [...space.mappers].map((mapper) => ({
    name: mapper.name,
    mappings: mapper.status().map(statusSnapshot),
  }));
  return {
    regions: space.map.regions().map(({ name, kind, priority, length, at, writable, mappings }) => ({
      name,
      kind,
      priority,
      length: hex(length),
      active: at !== undefined,
      ...(at === undefined ? {} : { range: rangeSnapshot(at) }),
      writable,
      mappings: mappings.values().map((mapping) => ({
        ...rangeSnapshot(mapping.range),
        backing: describe(mapping.store),
        writable: mapping.writable,
      })),
    })),
    flat: space.map.flat.values().map(({ range, name, kind, writable, store }) => ({
      ...rangeSnapshot(range),
      region: name,
      kind,
      writable,
      backing: describe(store),
    })),
    targets,
    quarantine: targets.flatMap(({ name, mappings }) =>
      mappings.filter(({ state }) => state === 'quarantined').map((mapping) => ({ target: name, ...mapping })),
    ),
  };
}

function statusSnapshot({ range, name, ...status }: MappingStatus): StatusSnapshot {
  return { ...rangeSnapshot(range), region: name, ...status };
}

function rangeSnapshot({ start, end }: AddressRange): RangeSnapshot {
  return { start: hex(start), end: hex(end) };
}

function describe(store: Store): string {
  return store.file === undefined ? 'private' : `${store.file.name}+${hex(store.offset)}`;
}
