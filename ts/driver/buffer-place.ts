/**
 * Where a DMA buffer goes.
 */
import { AddressRange } from '../address-range.ts';
import type { MemoryMapDraft } from '../guest/memory-map.ts';
import { findRoom } from '../guest/room.ts';
import { hostPageSize } from '../memory/page-size.ts';

/**
 * Where a guest usually has nothing: its 32-bit BARs, the RAM above 4 GiB and 64-bit BARs are below, or 64-bit BARs at
 * the very top.
 */
const BEYOND_A_GUEST = 1n << 38n;
/** Where the windows of 32-bit BARs end. */
const BEYOND_32_BITS = 1n << 32n;

/**
 * A free place in reach of every target, as low as can be: IOMMUs that join later may translate 39 bits, or fewer.
 * Beside a guest it is out of the guest's way, as far as the targets reach: addresses that are free now the guest may
 * give to a BAR later.
 *
 * @param bits the place ends at that number of bits or below
 * @param reach what each target can map
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
    const room = findRoom(length, alignment, [[AddressRange.between(start, end)], ...reach], draft.taken());
    if (room !== undefined) return room;
  }
  return undefined;
}
