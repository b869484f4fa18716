/**
 * Checks of what callers hand over.
 */
import { PeerDmaError } from './errors.ts';

/** A number of bytes. @internal */
export function requireCount(count: number, what = 'a length'): number {
  if (Number.isSafeInteger(count) && count >= 0) return count;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${what} is a whole number of bytes, not ${String(count)}`);
}

/** Bytes to be copied in. @internal */
export function requireBytes(bytes: Uint8Array): Uint8Array {
  if (bytes instanceof Uint8Array) return bytes;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `bytes are a Uint8Array, not ${typeof bytes}`);
}
