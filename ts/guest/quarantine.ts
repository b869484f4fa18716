/**
 * Ranges that a target would not unmap: it may still reach the memory there, so nothing there may change.
 */
import type { AddressRange } from '../address-range.ts';
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { PeerDmaError } from '../errors.ts';

/**
 * What stands in the way of a change in a range, if anything.
 *
 * @param own a sub-mapping that may be in quarantine: the memory that it shows stays, but it may be shown
 * @internal
 */
export function quarantineOn(
  mappers: Iterable<DmaMapper>,
  range: AddressRange,
  own?: SubMapping,
): PeerDmaError | undefined {
  for (const mapper of mappers) {
    const held = mapper.quarantinedIn(range);
    if (held === undefined || held.sub === own) continue;
    const target = mapper.name;
    return new PeerDmaError(
      'ERR_RANGE_QUARANTINED',
      `${range} can't change: ${target} could not unmap ${held.range} ("${held.sub.name}") and may still reach it. Close that target first`,
      { range: held.range, target, cause: held.error },
    );
  }
  return undefined;
}
