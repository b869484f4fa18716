/**
 * Finds addresses for memory that may be anywhere: where every IOMMU can map it, and nothing else is.
 */
import { AddressRange } from '../address-range.ts';

/**
 * The lowest free place: IOMMUs that join later may translate fewer bits than those that are there.
 *
 * @param length bytes
 * @param alignment of its start, in bytes
 * @param allowed the place has to lie within one range of each of these lists
 * @param taken what is there already, in any order
 * @internal
 */
export function findRoom(
  length: bigint,
  alignment: bigint,
  allowed: readonly (readonly AddressRange[])[],
  taken: readonly AddressRange[],
): AddressRange | undefined {
  const [first = [], ...others] = allowed;
  const common = [...others.reduce<readonly AddressRange[]>(intersect, first)].sort(byStart);
  const inTheWay = [...taken].sort(byStart);
  for (const { start, end } of common) {
    let at = alignUp(start, alignment);
    for (const other of inTheWay) {
      if (other.start >= at + length) break;
      if (other.end > at) at = alignUp(other.end, alignment);
    }
    if (at + length <= end) return AddressRange.of(at, length);
  }
  return undefined;
}

function byStart(a: AddressRange, b: AddressRange): number {
  return a.start < b.start ? -1 : 1;
}

function alignUp(address: bigint, alignment: bigint): bigint {
  return ((address + alignment - 1n) / alignment) * alignment;
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
