/**
 * Rejects memory that a target can't map, before all RAM of the guest is faulted in.
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
    if (!mapper.following || !subs.some((sub) => mapper.requires(sub))) continue;
    const iovaRanges = mapper.iovaRanges() ?? [];
    if (iovaRanges.length === 0 && !mapper.needsFile) continue;
    let valid: AddressRange | undefined; // most have the one before in common
    for (const sub of subs) {
      if (!mapper.requires(sub)) continue;
      throwIf(mapper.refusal(sub));
      if (valid?.contains(sub.range) === true || iovaRanges.length === 0) continue;
      valid = iovaRanges.find((range) => range.contains(sub.range));
      if (valid !== undefined) continue;
      const limits = { pageSize: hostPageSize(), iovaRanges };
      throw refusedMapping(mapRequest(sub, undefined), { errno: 'EINVAL', target: mapper.name, limits });
    }
  }
}
