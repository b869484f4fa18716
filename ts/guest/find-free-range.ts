/**
 * Finds addresses for memory that may be anywhere: where every IOMMU can map it, and nothing else is.
 */
import { AddressRange } from '../address-range.ts';
import type { FreeSpace } from './free-space.ts';

/**
 * The lowest free place: IOMMUs that join later may translate fewer bits than those that are there.
 *
 * @param length bytes
 * @param alignment of its start, in bytes: a power of two
 * @param allowed the place has to lie within one range of each of these lists
 * @param free the addresses that nothing has
 * @internal
 */
export function findFreeRange(
  length: bigint,
  alignment: bigint,
  allowed: readonly (readonly AddressRange[])[],
  free: FreeSpace,
): AddressRange | undefined {
  const [first = [], ...others] = allowed;
  const common = [...others.reduce<readonly AddressRange[]>(intersect, first)].sort(byStart);
  for (const range of common) {
    const place = free.lowest(length, alignment, range);
    if (place !== undefined) return place;
  }
  return undefined;
}

function byStart(a: AddressRange, b: AddressRange): number {
  return a.start < b.start ? -1 : 1;
}

/** What is in a range of both. */
function intersect(a: readonly AddressRange[], b: readonly AddressRange[]): AddressRange[] {
  return a.flatMap((one) =>
    b.flatMap((other) => {
      const [start, end] = [
        one.start > other.start ? one.start : other.start,
        one.end < other.end ? one.end : other.end,
      ];
      return start < end ? [AddressRange.between(start, end)] : [];
    }),
  );
}
