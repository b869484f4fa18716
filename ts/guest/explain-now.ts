/**
 * {@link explain} of the current guest memory. Reads only the regions and mappings at the address.
 */
import { AddressRange } from '../address-range.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import { type Explanation, explain, requireAddress } from './explain.ts';
import { type MemorySnapshot, quarantineOf, regionSnapshot, subMappingSnapshot, targetSnapshot } from './inspect.ts';

/** One more than `nothingAt` names of the regions that are not active: it reports that there are more. */
const IDLE_REGIONS = 6;

/** {@link explain} of the current guest memory. Throws the same errors. @internal */
export function explainNow(space: GuestAddressSpace, address: bigint, target?: string): Explanation {
  requireAddress(address);
  return explain(snapshotAt(space, address), address, target);
}

/** A snapshot of the regions and mappings at an address, or nearest to it. */
function snapshotAt({ map, mappers, width }: GuestAddressSpace, address: bigint): MemorySnapshot {
  const byte = AddressRange.between(address, address + 1n);
  const there = map.regionsAt(address).map((region) => {
    const mapping = region.mappings.at(address - (region.at?.start ?? 0n));
    return regionSnapshot(region, mapping === undefined ? [] : [mapping]);
  });
  const around = there.length > 0 ? [] : map.regionsAround(address, IDLE_REGIONS);
  const sub = map.flat.at(address);
  const targets = [...mappers].map((mapper) => {
    return targetSnapshot(mapper, mapper.status.in(byte));
  });
  return {
    addressWidth: width,
    regions: there.concat(around.map((region) => regionSnapshot(region, []))),
    flat: sub === undefined ? [] : [subMappingSnapshot(sub)],
    targets,
    quarantine: quarantineOf(targets),
  };
}
