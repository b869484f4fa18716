/**
 * Cuts an access of any length into the accesses that a device gets: each of a power of two, at a multiple of its
 * width.
 */

/**
 * The pieces, in ascending order.
 *
 * @param start address or offset of the first byte
 * @param length bytes
 * @param widest bytes of the widest piece, a power of two
 * @internal
 */
export function* alignedAccesses(
  start: bigint,
  length: number,
  widest: number,
): Generator<readonly [at: number, width: number]> {
  for (let at = 0; at < length;) {
    let width = widest;
    while (width > length - at || (start + BigInt(at)) % BigInt(width) !== 0n) width /= 2;
    yield [at, width];
    at += width;
  }
}
