/**
 * The state of guest memory as plain data.
 */
import { type AddressRange, hex } from '../address-range.ts';
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { MappingStatus, MemoryKind, PeerToPeer } from '../dma/target.ts';
import type { Store } from '../memory/backing.ts';
import type { AddressSpace } from './address-space.ts';
import type { Mapping, RegionState } from './region-state.ts';

/** A range as hexadecimal strings; `end` is one past the last address. */
export interface RangeSnapshot {
  /** The first address. */
  readonly start: string;
  /** One past the last address. */
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
  /** All that follow the memory map, and those that are here for their quarantine. */
  readonly targets: readonly TargetSnapshot[];
  /** Ranges that a target would not unmap: see {@link MappingStatus}. */
  readonly quarantine: readonly (StatusSnapshot & {
    /** Name of the target. */
    readonly target: string;
  })[];
}

/** A region as {@link GuestMemory.inspect} gives it. */
export interface RegionSnapshot {
  /** Unlike that of any other region of this guest memory, also of those that are gone. The older, the lower. */
  readonly id: number;
  /** For people; others may have the same. */
  readonly name: string;
  /** RAM, or a window onto a device. */
  readonly kind: MemoryKind;
  /** Where active regions overlap, the higher one is to be seen. */
  readonly priority: number;
  /** Bytes, in hexadecimal. */
  readonly length: string;
  /** Whether it is part of the memory map now. */
  readonly active: boolean;
  /** Guest-physical addresses while it is active. */
  readonly range?: RangeSnapshot;
  /** Whether it lets devices write; a mapping in it may be read-only all the same. */
  readonly writable: boolean;
  /** Ranges are offsets within the region. */
  readonly mappings: readonly (RangeSnapshot & {
    /** `NAME+OFFSET` of a file, or `private`. */
    readonly backing: string;
    /** Whether devices may write. */
    readonly writable: boolean;
  })[];
}

/** One entry of the flat memory map as {@link GuestMemory.inspect} gives it. */
export interface SubMappingSnapshot extends RangeSnapshot {
  /** Name of the region that shows it. */
  readonly region: string;
  /** Of the region. */
  readonly kind: MemoryKind;
  /** Whether devices may write: region and mapping both let them. */
  readonly writable: boolean;
  /** `NAME+OFFSET` of a file, or `private`. */
  readonly backing: string;
}

/** A DMA target as {@link GuestMemory.inspect} gives it. */
export interface TargetSnapshot {
  /** Of the target, as it was when it joined. */
  readonly name: string;
  /** What was said of device memory when it joined. */
  readonly peerToPeer: PeerToPeer;
  /** Not where it was to go and is here for its quarantine alone: it gets nothing new then. */
  readonly following: boolean;
  /** How each sub-mapping stands with it, in order of address. */
  readonly mappings: readonly StatusSnapshot[];
}

/** How a sub-mapping stands with a target, as {@link GuestMemory.inspect} gives it. See {@link MappingStatus}. */
export interface StatusSnapshot extends RangeSnapshot {
  /** Name of the region. */
  readonly region: string;
  /** Of the region. */
  readonly kind: MemoryKind;
  /** What {@link MappingStatus.state} says. */
  readonly state: MappingStatus['state'];
  /** An {@link ErrorCode} where the error had one. */
  readonly code?: string;
  /** Name of the kernel's error, where the kernel refused. */
  readonly errno?: string;
  /** What went wrong, for people; not there where nothing did. */
  readonly reason?: string;
}

/** @internal */
export function snapshot(space: AddressSpace): MemorySnapshot {
  const targets = [...space.mappers].map((mapper) => targetSnapshot(mapper, mapper.status.all()));
  return {
    addressWidth: space.width,
    regions: space.map.regions().map((region) => regionSnapshot(region)),
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

/** @param mappings those of the region that are listed @internal */
export function regionSnapshot(region: RegionState, mappings = region.mappings.values()): RegionSnapshot {
  const { id, name, kind, priority, length, at, writable } = region;
  return {
    id,
    name,
    kind,
    priority,
    length: hex(length),
    active: at !== undefined,
    ...(at === undefined ? {} : { range: rangeSnapshot(at) }),
    writable,
    mappings: mappings.map(mappingSnapshot),
  };
}

/** @internal */
export function mappingSnapshot({ range, store, writable }: Mapping): RegionSnapshot['mappings'][number] {
  return { start: hex(range.start), end: hex(range.end), backing: describe(store), writable };
}

/** @internal */
export function subMappingSnapshot({ range, name, kind, writable, store }: SubMapping): SubMappingSnapshot {
  // Field by field, here and below: copying the fields of another object takes ten times as long.
  return { start: hex(range.start), end: hex(range.end), region: name, kind, writable, backing: describe(store) };
}

/** @internal */
export function statusSnapshot({ range, name, kind, state, code, errno, reason }: MappingStatus): StatusSnapshot {
  const facts = { start: hex(range.start), end: hex(range.end), region: name, kind, state };
  if (reason === undefined && code === undefined) return facts;
  return {
    ...facts,
    ...(code === undefined ? {} : { code }),
    ...(errno === undefined ? {} : { errno }),
    ...(reason === undefined ? {} : { reason }),
  };
}

function rangeSnapshot({ start, end }: AddressRange): RangeSnapshot {
  return { start: hex(start), end: hex(end) };
}

function describe(store: Store): string {
  return store.file === undefined ? 'private' : `${store.file.name}+${hex(store.offset)}`;
}
