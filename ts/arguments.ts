/**
 * Checks of what callers hand over.
 */
import { PeerDmaError } from './errors.ts';

/** A number of bytes. @internal */
export function requireCount(count: number, what = 'a length'): number {
  if (Number.isSafeInteger(count) && count >= 0) return count;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${what} is a whole number of bytes, not ${String(count)}`);
}

/** Bytes to be copied in. Those of a SharedArrayBuffer may change while they are copied, so they are refused. @internal */
export function requireBytes(bytes: Uint8Array): Uint8Array {
  if (bytes instanceof Uint8Array && !(bytes.buffer instanceof SharedArrayBuffer)) return bytes;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'bytes are a Uint8Array, and not of shared memory');
}
