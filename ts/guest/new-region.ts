/**
 * New regions of the memory map, and the checks of their addresses.
 */
import { type AddressRange, requireAligned, requireRange } from '../address-range.ts';
import type { MemoryKind } from '../dma/target.ts';
import { PeerDmaError } from '../errors.ts';
import { IntervalMap } from '../interval-map.ts';
import { requireNumber } from '../number-types.ts';
import { hostPageSize } from '../memory/page-size.ts';
import { valueText } from '../value-text.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import { beyondWidth } from './address-width.ts';
import { DEFAULT_PRIORITY, type RegionState } from './region-state.ts';

/** Returns a new region with checked options. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function newRegion(
  space: GuestAddressSpace,
  options: Pick<RegionState, 'name' | 'length' | 'kind' | 'priority' | 'access' | 'isBuffer'>,
): RegionState {
  if (typeof options.name !== 'string' || options.name === '') {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `a region has a name, not ${valueText(options.name)}`);
  }
  requireKind(options.kind);
  requireNumber(options.priority, 'priority');
  if (!Number.isFinite(options.priority)) {
    throw new PeerDmaError(
      'ERR_INVALID_ARGUMENT',
      `the priority of a region is finite, not ${valueText(options.priority)}`,
    );
  }
  return { ...options, id: space.nextRegionId(), writable: true, mappings: new IntervalMap(), mappedLength: 0n };
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function requireKind(kind: MemoryKind): void {
  if (typeof kind === 'string' && Object.hasOwn(DEFAULT_PRIORITY, kind)) return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the kind of a region is 'ram' or 'device', not ${valueText(kind)}`);
}

/**
 * Checks guest-physical addresses for a region.
 *
 * @throws {PeerDmaError} `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_INVALID_ARGUMENT`
 * @internal
 */
export function requirePlace(space: GuestAddressSpace, range: AddressRange, what: string): void {
  requireRange(range);
  requireAligned(range, hostPageSize(), `${what} at`);
  const why = beyondWidth(range, space.width);
  if (why !== undefined) throw new PeerDmaError('ERR_OUT_OF_RANGE', `${what} at ${range} ${why}`, { range });
}
