/**
 * The state of guest memory as plain data.
 */
import { type AddressRange, hex } from '../address-range.ts';
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { MappingStatus, MemoryKind, PeerToPeer } from '../dma/target.ts';
import type { Store } from '../memory/backing.ts';
import type { AddressSpace } from './address-space.ts';
import type { RegionState } from './region-state.ts';

/** A range as hexadecimal strings; `end` is one past the last address. */
export interface RangeSnapshot {
  readonly start: string;
  readonly end: string;
}

/** What {@link GuestMemory.inspect} gives; `JSON.stringify` takes it. */
export interface MemorySnapshot {
  /** Bits of a guest-physical address. */
  readonly addressWidth: number;
  /** All regions, active or not, the oldest first: where priorities are equal, the older one is to be seen. */
  readonly regions: readonly RegionSnapshot[];
  /** What is to be seen at each address, in order. */
  readonly flat: readonly SubMappingSnapshot[];
  readonly targets: readonly TargetSnapshot[];
  /** Ranges that a target would not unmap: see {@link MappingStatus}. */
  readonly quarantine: readonly (StatusSnapshot & { readonly target: string })[];
}

/** A region as {@link GuestMemory.inspect} gives it. */
export interface RegionSnapshot {
  /** Unlike that of any other region of this guest memory, also of those that are gone. The older, the lower. */
  readonly id: number;
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

/** One entry of the flat memory map as {@link GuestMemory.inspect} gives it. */
export interface SubMappingSnapshot extends RangeSnapshot {
  /** Name of the region that shows it. */
  readonly region: string;
  readonly kind: MemoryKind;
  readonly writable: boolean;
  /** `NAME+OFFSET` of a file, or `private`. */
  readonly backing: string;
}

/** A DMA target as {@link GuestMemory.inspect} gives it. */
export interface TargetSnapshot {
  readonly name: string;
  /** What was said of device memory when it joined. */
  readonly peerToPeer: PeerToPeer;
  /** Not where it was to go and is here for its quarantine alone: it gets nothing new then. */
  readonly following: boolean;
  readonly mappings: readonly StatusSnapshot[];
}

/** How a sub-mapping stands with a target, as {@link GuestMemory.inspect} gives it. See {@link MappingStatus}. */
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
  const targets = [...space.mappers].map((mapper) => targetSnapshot(mapper, mapper.status()));
  return {
    addressWidth: space.width,
    regions: space.map.regions().map(regionSnapshot),
    flat: space.map.flat.values().map(subMappingSnapshot),
    targets,
    quarantine: quarantineOf(targets),
  };
}

/** @internal */
export function targetSnapshot(
  { name, peerToPeer, following }: DmaMapper,
  status: readonly MappingStatus[],
): TargetSnapshot {
  return { name, peerToPeer, following, mappings: status.map(statusSnapshot) };
}

/** What targets keep, said in one place. @internal */
export function quarantineOf(targets: readonly TargetSnapshot[]): MemorySnapshot['quarantine'] {
  return targets.flatMap(({ name, mappings }) =>
    mappings.filter(({ state }) => state === 'quarantined').map((mapping) => ({ target: name, ...mapping })),
  );
}

/** @internal */
export function regionSnapshot(region: RegionState): RegionSnapshot {
  const { id, name, kind, priority, length, at, writable, mappings } = region;
  return {
    id,
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
  };
}

/** @internal */
export function subMappingSnapshot({ range, name, kind, writable, store }: SubMapping): SubMappingSnapshot {
  return { ...rangeSnapshot(range), region: name, kind, writable, backing: describe(store) };
}

/** @internal */
export function statusSnapshot({ range, name, ...status }: MappingStatus): StatusSnapshot {
  return { ...rangeSnapshot(range), region: name, ...status };
}

function rangeSnapshot({ start, end }: AddressRange): RangeSnapshot {
  return { start: hex(start), end: hex(end) };
}

function describe(store: Store): string {
  return store.file === undefined ? 'private' : `${store.file.name}+${hex(store.offset)}`;
}
