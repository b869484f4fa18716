/**
 * The state of guest memory as plain data.
 */
import { type AddressRange, hex } from '../address-range.ts';
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { MappingStatus, MemoryKind, PeerToPeer } from '../dma/target.ts';
import type { ErrorCode } from '../errors.ts';
import type { MemorySlice } from '../memory/backing.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import type { Mapping, RegionState } from './region-state.ts';

/** A range as hexadecimal strings; `end` is one past the last address. */
export interface RangeSnapshot {
  /** The first address. */
  readonly start: string;
  /** One past the last address. */
  readonly end: string;
}

/** The result of {@link GuestMemory.inspect}: plain data for `JSON.stringify`. */
export interface MemorySnapshot {
  /** Bits of a guest-physical address. */
  readonly addressWidth: number;
  /** All regions, active or not, the oldest first: of equal priorities the older one wins. */
  readonly regions: readonly RegionSnapshot[];
  /** The flat map, in order of address. */
  readonly flat: readonly SubMappingSnapshot[];
  /** All targets, including those that stay only for their quarantine. */
  readonly targets: readonly TargetSnapshot[];
  /** Ranges that a target failed to unmap: see {@link MappingStatus}. */
  readonly quarantine: readonly (MappingStatusSnapshot & {
    /** Name of the target. */
    readonly target: string;
  })[];
}

/** A region in a {@link MemorySnapshot}. */
export interface RegionSnapshot {
  /** Unique in this guest memory and never reused; an older region has a lower one. */
  readonly id: number;
  /** Not unique. */
  readonly name: string;
  /** RAM, or a window onto a device. */
  readonly kind: MemoryKind;
  /** If active regions overlap, the higher priority wins. */
  readonly priority: number;
  /** Bytes, in hexadecimal. */
  readonly length: string;
  /** Whether it is part of the memory map now. */
  readonly active: boolean;
  /** Guest-physical addresses while it is active. */
  readonly range?: RangeSnapshot;
  /** Whether devices may write to its writable mappings. */
  readonly writable: boolean;
  /** Ranges are offsets within the region. */
  readonly mappings: readonly (RangeSnapshot & {
    /** `NAME+OFFSET` of a file, or `private`. */
    readonly backing: string;
    /** Whether devices may write. */
    readonly writable: boolean;
  })[];
}

/** An entry of the flat map in a {@link MemorySnapshot}. */
export interface SubMappingSnapshot extends RangeSnapshot {
  /** Name of its region. */
  readonly region: string;
  /** Of the region. */
  readonly kind: MemoryKind;
  /** Whether devices may write. */
  readonly writable: boolean;
  /** `NAME+OFFSET` of a file, or `private`. */
  readonly backing: string;
}

/** A DMA target in a {@link MemorySnapshot}. */
export interface TargetSnapshot {
  /** Of the target, as it was when it joined. */
  readonly name: string;
  /** Its policy for device memory. */
  readonly peerToPeer: PeerToPeer;
  /** Whether it has joined and not left. A target that has left stays for its quarantine only. */
  readonly joined: boolean;
  /** The status of each sub-mapping, in order of address. */
  readonly mappings: readonly MappingStatusSnapshot[];
}

/** The status of a sub-mapping in a target, in a {@link MemorySnapshot}. See {@link MappingStatus}. */
export interface MappingStatusSnapshot extends RangeSnapshot {
  /** Name of the region. */
  readonly region: string;
  /** Of the region. */
  readonly kind: MemoryKind;
  /** As {@link MappingStatus.state}. */
  readonly state: MappingStatus['state'];
  /** The code of the error, if there is one. */
  readonly code?: ErrorCode;
  /** Name of the kernel's error, if the kernel refused. */
  readonly errno?: string;
  /** Why it is not mapped: the text of the error, or the policy. */
  readonly reason?: string;
}

/** @internal */
export function snapshot(space: GuestAddressSpace): MemorySnapshot {
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
  { name, peerToPeer, joined }: DmaMapper,
  status: readonly MappingStatus[],
): TargetSnapshot {
  return { name, peerToPeer, joined, mappings: status.map(statusSnapshot) };
}

/** The quarantine of all targets in one list. @internal */
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
export function mappingSnapshot({ range, memory, writable }: Mapping): RegionSnapshot['mappings'][number] {
  return { start: hex(range.start), end: hex(range.end), backing: describe(memory), writable };
}

/** @internal */
export function subMappingSnapshot({ range, name, kind, writable, memory }: SubMapping): SubMappingSnapshot {
  // Field by field, here and below: copying the fields of another object takes ten times as long.
  return { start: hex(range.start), end: hex(range.end), region: name, kind, writable, backing: describe(memory) };
}

/** @internal */
export function statusSnapshot({
  range,
  region,
  kind,
  state,
  code,
  errno,
  reason,
}: MappingStatus): MappingStatusSnapshot {
  const facts = { start: hex(range.start), end: hex(range.end), region, kind, state };
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

function describe(memory: MemorySlice): string {
  return memory.file === undefined ? 'private' : `${memory.file.name}+${hex(memory.offset)}`;
}
