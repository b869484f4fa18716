/**
 * The state of a region at one moment, as an immutable value.
 */
import type { AddressRange } from '../address-range.ts';
import type { DeviceAccess } from '../dma/device-access.ts';
import type { MemoryKind } from '../dma/target.ts';
import type { IntervalMap } from '../interval-map.ts';
import type { MemorySlice } from '../memory/backing.ts';

/** The default priorities: RAM wins over device memory. */
export const DEFAULT_PRIORITY: Readonly<Record<MemoryKind, number>> = { ram: 100, device: 0 };

/** Memory within a region. @internal */
export interface Mapping {
  /** Offsets from the start of the region. */
  readonly range: AddressRange;
  readonly memory: MemorySlice;
  readonly writable: boolean;
}

/** @internal */
export interface RegionState {
  /** Counts up: the lower of two is the older region. */
  readonly id: number;
  readonly name: string;
  readonly kind: MemoryKind;
  readonly priority: number;
  readonly length: bigint;
  /** Guest-physical addresses while it is active: it is part of the memory map then, holes included. */
  readonly at?: AddressRange | undefined;
  /** Whether devices may write the region. A mapping may forbid it. */
  readonly writable: boolean;
  /** The access policy of device memory. Default: `FULL_ACCESS` */
  readonly access?: DeviceAccess;
  /** The VMM's own memory at addresses that it did not choose, not a part of the guest. */
  readonly isBuffer?: boolean;
  /** It is one of the ranges of RAM of the guest, which no other RAM may overlap. */
  readonly isRam?: boolean;
  /** The memory of pluggable RAM: its mappings are parts of it. Kept as long as the region exists. */
  readonly memory?: MemorySlice;
  /** Shared with earlier states: never changed, only cloned. */
  readonly mappings: IntervalMap<Mapping>;
  /** Bytes of the mappings. */
  readonly mappedLength: bigint;
}

/** The state of a region for `console.log`. @internal */
export function stateText(region: RegionState | undefined): string {
  if (region === undefined) return 'removed';
  if (region.at === undefined) return 'inactive';
  return region.writable ? 'active' : 'active, read-only';
}

/** Orders regions by precedence: the higher priority, then the older. @internal */
export function byPrecedence(a: RegionState, b: RegionState): number {
  return b.priority - a.priority || a.id - b.id;
}
