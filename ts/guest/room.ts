/**
 * Finds addresses for memory that may be anywhere: where every IOMMU can map it, and nothing else is.
 */
import { AddressRange } from '../address-range.ts';

/**
 * The highest free place, so that what a guest has at low addresses, and what comes there, is not in the way.
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
  const common = others.reduce<readonly AddressRange[]>(intersect, first);
  const inTheWay = [...taken].sort((a, b) => (a.start < b.start ? 1 : -1));
  let best = -1n;
  for (const { start, end } of common) {
    let at = alignDown(end - length, alignment);
    for (const other of inTheWay) {
      if (other.start < at + length && at < other.end) at = alignDown(other.start - length, alignment);
    }
    if (at >= start && at > best) best = at;
  }
  return best < 0n ? undefined : AddressRange.of(best, length);
}

function alignDown(address: bigint, alignment: bigint): bigint {
  return address < 0n ? -1n : address - (address % alignment);
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
