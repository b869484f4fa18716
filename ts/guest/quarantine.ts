/**
 * Ranges that a target would not unmap: it may still reach the memory there, so nothing there may change.
 */
import type { AddressRange } from '../address-range.ts';
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { MappingFailure } from '../dma/mapping-failure.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { PeerDmaError } from '../errors.ts';
import { sharePrivateMemory } from '../memory/backing.ts';

/**
 * What keeps the memory at a range from being changed, if anything.
 *
 * @internal
 */
export function quarantineOn(mappers: Iterable<DmaMapper>, range: AddressRange): PeerDmaError | undefined {
  return find(mappers, (held) => held.range.overlaps(range), range);
}

/** Whether a target may still reach what this very sub-mapping shows in this process. @internal */
export function isQuarantined(mappers: Iterable<DmaMapper>, sub: SubMapping): boolean {
  return find(mappers, (held, mapper) => held.sub === sub && mapper.wantsVa(sub), sub.range) !== undefined;
}

/**
 * What keeps a sub-mapping from being shown, if anything: a quarantine of other memory at its addresses, or of its memory
 * at other addresses of this process, where private memory can be at one place only.
 *
 * @internal
 */
export function quarantineAgainst(mappers: Iterable<DmaMapper>, sub: SubMapping): PeerDmaError | undefined {
  const { range } = sub;
  return find(
    mappers,
    (held, mapper) =>
      held.sub !== sub &&
      (held.range.overlaps(range) || (mapper.wantsVa(held.sub) && sharePrivateMemory(held.sub, sub))),
    range,
  );
}

function find(
  mappers: Iterable<DmaMapper>,
  keeps: (held: MappingFailure, mapper: DmaMapper) => boolean,
  range: AddressRange,
): PeerDmaError | undefined {
  for (const mapper of mappers) {
    if (mapper.quarantined.size === 0) continue;
    const held = mapper.quarantined.values().find((one) => keeps(one, mapper));
    if (held === undefined) continue;
    const what = `${mapper.name} could not unmap ${held.range} ("${held.sub.name}") and may still reach it`;
    return new PeerDmaError('ERR_RANGE_QUARANTINED', `${range} can't change: ${what}. Close that target first`, {
      range: held.range,
      target: mapper.name,
      cause: held.error,
    });
  }
  return undefined;
}
