/**
 * Chooses the IOVA of a DMA buffer.
 */
import { AddressRange } from '../address-range.ts';
import type { MemoryMapDraft } from '../guest/memory-map.ts';
import { findFreeRange } from '../guest/find-free-range.ts';
import { hostPageSize } from '../memory/page-size.ts';

/**
 * From here on addresses are usually free: 32-bit BARs, RAM above 4 GiB and most 64-bit BARs of a guest are below,
 * the other 64-bit BARs at the very top.
 */
const BEYOND_A_GUEST = 1n << 38n;
/** Where the windows of 32-bit BARs end. */
const BEYOND_32_BITS = 1n << 32n;

/**
 * Finds the lowest free range that every target can map: IOMMUs that join later may translate 39 bits, or fewer. In the
 * memory of a guest it prefers high addresses, as the guest may move a BAR to lower ones later.
 *
 * @param bits the range ends at or below 2^bits
 * @param reach the ranges that each target can map
 * @internal
 */
export function findPlace(
  draft: MemoryMapDraft,
  length: bigint,
  alignment: bigint,
  bits: number,
  reach: readonly (readonly AddressRange[])[],
): AddressRange | undefined {
  const end = 1n << BigInt(bits);
  const lowest = hostPageSize(); // not 0, which drivers and devices take for no address
  for (const start of draft.hasGuest ? [BEYOND_A_GUEST, BEYOND_32_BITS, lowest] : [lowest]) {
    if (start >= end) continue;
    const room = findFreeRange(length, alignment, [[AddressRange.between(start, end)], ...reach], draft.free);
    if (room !== undefined) return room;
  }
  return undefined;
}
