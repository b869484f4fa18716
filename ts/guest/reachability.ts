/**
 * Rejects memory that a target can't map before it is faulted in: else all of a guest's RAM would be allocated first.
 */
import type { DmaMapper } from '../dma/dma-mapper.ts';
import { refusedMapping } from '../dma/refusal.ts';
import { type SubMapping, mapRequest } from '../dma/sub-mapping.ts';
import { hostPageSize } from '../memory/page-size.ts';

/**
 * @throws {PeerDmaError} `ERR_IOVA_UNREACHABLE` for memory that a target has to have and that lies on no range of its
 * `iovaRanges`, as the kernel refuses it when all of it is pinned; `ERR_FILE_REQUIRED`
 * @internal
 */
export function requireReachable(subs: readonly SubMapping[], mappers: Iterable<DmaMapper>): void {
  for (const mapper of mappers) {
    if (!mapper.following) continue;
    const due = subs.filter((sub) => mapper.requires(sub));
    if (due.length === 0) continue;
    const iovaRanges = mapper.iovaRanges() ?? [];
    for (const sub of due) {
      const refusal = mapper.refusal(sub);
      if (refusal !== undefined) throw refusal;
      if (iovaRanges.length === 0 || iovaRanges.some((valid) => valid.contains(sub.range))) continue;
      const limits = { pageSize: hostPageSize(), iovaRanges };
      throw refusedMapping(mapRequest(sub, undefined), { errno: 'EINVAL', target: mapper.name, limits });
    }
  }
}
