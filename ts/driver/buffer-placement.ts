/**
 * Chooses the IOVA of a DMA buffer.
 */
import { AddressRange } from '../address-range.ts';
import type { MemoryMapDraft } from '../guest/memory-map.ts';
import { findFreeRange } from '../guest/find-free-range.ts';
import { hostPageSize } from '../memory/page-size.ts';

/**
 * Addresses above are usually free. A guest has 32-bit BARs, RAM above 4 GiB and most 64-bit BARs below it.
 *
 * Other 64-bit BARs are at the top of the address space.
 */
const BEYOND_A_GUEST = 1n << 38n;
/** The end of the windows of 32-bit BARs. */
const BEYOND_32_BITS = 1n << 32n;

/**
 * Finds the lowest free range that every target can map.
 *
 * A low range can still be mapped by IOMMUs that join later and translate 39 bits, or fewer. In the memory of a guest
 * it prefers high addresses, since the guest may move a BAR to a lower one later.
 *
 * @param bits the range ends at or below 2^bits
 * @param reach the ranges that each target can map
 * @internal
 */
export function findPlacement(
  draft: MemoryMapDraft,
  length: bigint,
  alignment: bigint,
  bits: number,
  reach: readonly (readonly AddressRange[])[],
): AddressRange | undefined {
  const end = 1n << BigInt(bits);
  const lowest = hostPageSize(); // drivers and devices treat 0 as a null address
  for (const start of draft.hasGuest ? [BEYOND_A_GUEST, BEYOND_32_BITS, lowest] : [lowest]) {
    if (start >= end) continue;
    const room = findFreeRange(length, alignment, [[AddressRange.between(start, end)], ...reach], draft.free);
    if (room !== undefined) return room;
  }
  return undefined;
}
