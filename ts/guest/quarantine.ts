/**
 * Ranges that a target failed to unmap. Its devices may still reach the memory, so nothing there may change.
 */
import type { AddressRange } from '../address-range.ts';
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { MappingFailure } from '../dma/mapping-failure.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { PeerDmaError } from '../errors.ts';
import { type MemorySlice, sharePrivateMemory } from '../memory/backing.ts';

/**
 * The error of a quarantine that overlaps a range, if there is one.
 *
 * @internal
 */
export function quarantineOn(mappers: Iterable<DmaMapper>, range: AddressRange): PeerDmaError | undefined {
  return find(mappers, (quarantined) => quarantined.range.overlaps(range), range);
}

/** Whether a sub-mapping is in quarantine for a target that maps it by host virtual address. @internal */
export function isQuarantined(mappers: Iterable<DmaMapper>, sub: SubMapping): boolean {
  return (
    find(mappers, (quarantined, mapper) => quarantined.sub === sub && mapper.usesHostAddress(sub), sub.range) !==
    undefined
  );
}

/**
 * The error of a quarantine that keeps a sub-mapping from being mapped, if there is one. It has other memory at these
 * addresses, or the same private memory, which can have one place in this process.
 *
 * @internal
 */
export function quarantineAgainst(mappers: Iterable<DmaMapper>, sub: SubMapping): PeerDmaError | undefined {
  const { range } = sub;
  return find(
    mappers,
    (quarantined, mapper) =>
      quarantined.sub !== sub &&
      (quarantined.range.overlaps(range) ||
        (mapper.usesHostAddress(quarantined.sub) && sharePrivateMemory(quarantined.sub, sub))),
    range,
  );
}

/**
 * The error of a quarantine that keeps a sub-mapping from a target, if there is one. The quarantine of another target
 * matters only if this one maps the memory by host virtual address.
 *
 * @internal
 */
export function quarantineFor(
  mapper: DmaMapper,
  sub: SubMapping,
  mappers: Iterable<DmaMapper>,
): PeerDmaError | undefined {
  return quarantineAgainst(mapper.usesHostAddress(sub) ? mappers : [mapper], sub);
}

/** The quarantined sub-mappings of this memory, each with the error that names its target. @internal */
export function quarantinesOf(
  mappers: Iterable<DmaMapper>,
  memory: MemorySlice,
): { readonly sub: SubMapping; readonly quarantine: PeerDmaError }[] {
  return [...mappers].flatMap((mapper) => {
    if (mapper.quarantined.size === 0) return [];
    const quarantined = mapper.quarantined
      .values()
      .filter(({ sub: { memory: other } }) => other.file === memory.file && other.private === memory.private);
    return quarantined.map((one) => ({ sub: one.sub, quarantine: quarantineError(mapper, one, one.range) }));
  });
}

function find(
  mappers: Iterable<DmaMapper>,
  blocks: (quarantined: MappingFailure, mapper: DmaMapper) => boolean,
  range: AddressRange,
): PeerDmaError | undefined {
  for (const mapper of mappers) {
    if (mapper.quarantined.size === 0) continue;
    const found = mapper.quarantined.values().find((one) => blocks(one, mapper));
    if (found === undefined) continue;
    return quarantineError(mapper, found, range);
  }
  return undefined;
}

function quarantineError(
  { name: target }: DmaMapper,
  quarantined: MappingFailure,
  changed: AddressRange,
): PeerDmaError {
  const { range, sub, error: cause } = quarantined;
  const what = `${target} could not unmap ${range} ("${sub.name}") and may still reach it`;
  const text = `${changed} cannot change: ${what}. Close that target first`;
  return new PeerDmaError('ERR_RANGE_QUARANTINED', text, { range, target, cause });
}
