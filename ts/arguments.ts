/**
 * Checks of what callers hand over.
 */
import { constants } from 'node:buffer';
import { hex } from './address-range.ts';
import { PeerDmaError } from './errors.ts';
import { valueText } from './value-text.ts';

/** A number of bytes. @internal */
export function requireCount(count: number, what = 'a length'): number {
  if (Number.isSafeInteger(count) && count >= 0) return count;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${what} is a whole number of bytes, not ${valueText(count)}`);
}

/** Checks an access of `length` bytes at an offset of something that has `limit`, before room is made for it. @internal */
export function requireAccess(offset: bigint, length: number, limit: bigint, what: string): void {
  requireCount(length);
  if (typeof offset !== 'bigint' || offset < 0n) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `an offset is a non-negative bigint, not ${valueText(offset)}`);
  }
  if (offset + BigInt(length) <= limit) return;
  throw new PeerDmaError(
    'ERR_OUT_OF_RANGE',
    `${length} bytes at ${hex(offset)} pass the end of ${what}: it has ${hex(limit)}`,
  );
}

/** Checks that `length` bytes fit into an `ArrayBuffer`. @internal */
export function requireViewable(length: bigint, what: string): void {
  const most = constants.MAX_LENGTH;
  if (length <= BigInt(most)) return;
  throw new PeerDmaError(
    'ERR_OUT_OF_RANGE',
    `${what}: ${length} bytes do not fit into an ArrayBuffer, which has at most ${most}. Use several smaller ones`,
  );
}

/**
 * Room for bytes that are copied out.
 *
 * @param length bytes
 * @param what has them, for messages
 * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` for more than an `ArrayBuffer` can have, `ERR_SYSTEM` where no memory is
 * left
 * @internal
 */
export function newBytes(length: number, what: string): Uint8Array<ArrayBuffer> {
  requireViewable(BigInt(requireCount(length)), what);
  try {
    return new Uint8Array(length);
  } catch (cause) {
    throw new PeerDmaError('ERR_SYSTEM', `${what}: no memory is left for ${length} bytes. Read fewer at once`, {
      cause,
    });
  }
}

/** Bytes to be copied in. Those of a SharedArrayBuffer may change while they are copied, so they are refused. @internal */
export function requireBytes(bytes: Uint8Array): Uint8Array {
  if (bytes instanceof Uint8Array && !(bytes.buffer instanceof SharedArrayBuffer)) return bytes;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'bytes are a Uint8Array, and not of shared memory');
}

/** @internal */
export function requireBoolean(value: boolean, what: string): void {
  if (typeof value === 'boolean') return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${what} is true or false, not ${valueText(value)}`);
}

/** The named arguments of a call. @internal */
export function requireOptions<T extends object>(options: T): T {
  if (typeof options === 'object' && options !== null) return options;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the arguments come as an object, not ${valueText(options)}`);
}
