/**
 * Finds free addresses that every IOMMU can map, for memory that may have any address.
 */
import { AddressRange } from '../address-range.ts';
import type { FreeSpace } from './free-space.ts';

/**
 * The lowest free range: an IOMMU that joins later may translate fewer bits.
 *
 * @param length bytes
 * @param alignment of its start, in bytes: a power of two
 * @param allowed the range has to lie within one range of each of these lists
 * @param free the addresses that no region has
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

/** The intersections of the ranges of both. */
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
