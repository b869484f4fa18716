/**
 * Rejects memory that a target cannot map, before all RAM of the guest is faulted in.
 */
import type { AddressRange } from '../address-range.ts';
import type { DmaMapper } from '../dma/dma-mapper.ts';
import { refusedMapping } from '../dma/refusal.ts';
import { type SubMapping, mapRequest } from '../dma/sub-mapping.ts';
import { throwIf } from '../errors.ts';
import { hostPageSize } from '../memory/page-size.ts';

/**
 * @throws {PeerDmaError} `ERR_IOVA_UNREACHABLE` for memory that a target requires and that lies outside of its
 * `iovaRanges`: the kernel would reject it only after pinning all of it; `ERR_FILE_REQUIRED`
 * @internal
 */
export function requireReachable(subs: readonly SubMapping[], mappers: Iterable<DmaMapper>): void {
  for (const mapper of mappers) {
    const check = reachabilityOf(subs, mapper);
    if (check !== undefined) subs.forEach(check);
  }
}

/**
 * Returns the check of {@link requireReachable} for one sub-mapping after another.
 *
 * @returns `undefined` if the target can map all of them
 * @internal
 */
export function reachabilityOf(
  subs: readonly SubMapping[],
  mapper: DmaMapper,
): ((sub: SubMapping) => void) | undefined {
  if (!mapper.joined || !subs.some((sub) => mapper.requires(sub))) return undefined;
  const iovaRanges = mapper.iovaRanges() ?? [];
  if (iovaRanges.length === 0 && !mapper.needsFile) return undefined;
  let valid: AddressRange | undefined; // most have the one before in common
  return (sub) => {
    if (!mapper.requires(sub)) return;
    throwIf(mapper.refusal(sub));
    if (valid?.contains(sub.range) === true || iovaRanges.length === 0) return;
    valid = iovaRanges.find((range) => range.contains(sub.range));
    if (valid !== undefined) return;
    const limits = { pageSize: hostPageSize(), iovaRanges };
    throw refusedMapping(mapRequest(sub, undefined), { errno: 'EINVAL', target: mapper.name, limits });
  };
}
