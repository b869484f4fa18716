/** Splits an access of any length into naturally aligned accesses whose width is a power of two. */
import { requireCount } from '../arguments.ts';
import { type ErrorDetails, PeerDmaError } from '../errors.ts';

/** The maximum length of one access: a page. No guest instruction accesses more at once. */
const MAX_BYTES = 4096;

/**
 * Checks the length of an access from a VMM, before memory is allocated for it.
 *
 * @param owner PCI address of the device, or another name for the message
 * @param details of the error
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_EMPTY_RANGE` for 0, `ERR_OUT_OF_RANGE` for more than a page
 * @internal
 */
export function requireAccessLength(owner: string, length: number, details: ErrorDetails = { bdf: owner }): void {
  requireCount(length);
  const fail = (code: 'ERR_EMPTY_RANGE' | 'ERR_OUT_OF_RANGE', reason: string): PeerDmaError =>
    new PeerDmaError(code, `${owner}: access failed: ${reason}`, details);
  if (length === 0) throw fail('ERR_EMPTY_RANGE', 'it has no bytes. Pass 1 byte or more.');
  if (length <= MAX_BYTES) return;
  throw fail('ERR_OUT_OF_RANGE', `${length} bytes are more than ${MAX_BYTES}. Pass them in several accesses.`);
}

/**
 * Yields the aligned accesses in ascending order.
 *
 * @param start address or offset of the first byte
 * @param length bytes
 * @param widest maximum width in bytes, a power of two
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
