/**
 * Parts of binary structures as lists of bytes. Integers are little-endian.
 */

export type Bytes = readonly number[];

/** Encodes values. @throws {RangeError} if one does not fit */
type Encoder = (...values: readonly (number | bigint)[]) => Bytes;

export const u8: Encoder = integersOf(1);
export const u16: Encoder = integersOf(2);
export const u32: Encoder = integersOf(4);
export const u64: Encoder = integersOf(8);

export function zeros(length: number): Bytes {
  return Array.from({ length }, () => 0);
}

export function ascii(text: string): Bytes {
  return [...new TextEncoder().encode(text)];
}

/** The byte that makes the sum of all bytes 0. */
export function checksum(bytes: Bytes): number {
  return -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;
}

function integersOf(length: number): Encoder {
  return (...values) => values.flatMap((value) => littleEndian(BigInt(value), length));
}

function littleEndian(value: bigint, length: number): Bytes {
  if (BigInt.asUintN(length * 8, value) !== value) throw new RangeError(`${value} does not fit in ${length} bytes`);
  return Array.from({ length }, (_, at) => Number((value >> BigInt(8 * at)) & 0xffn));
}
