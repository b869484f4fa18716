/**
 * Calls of the native core, and the conversion of its errors.
 */
import type { NativeError } from '#native';
import { AddressRange } from './address-range.ts';
import { type ErrorCode, type ErrorDetails, PeerDmaError, isError } from './errors.ts';

/** The code of napi's own errors for an argument of the wrong type. */
const WRONG_TYPE = /^(InvalidArg|[A-Z][A-Za-z]*Expected)$/;

/**
 * Converts an error of the native binding into a {@link PeerDmaError} with details of the caller. Returns other errors
 * (a bug, an out-of-memory `RangeError`) unchanged.
 *
 * @internal
 */
export function fromNative(error: unknown, details: ErrorDetails = {}): unknown {
  if (!isError(error) || error instanceof PeerDmaError) return error;
  if (!isNative(error)) {
    const wrongType = 'code' in error && WRONG_TYPE.test(String(error.code));
    return wrongType ? new PeerDmaError('ERR_INVALID_ARGUMENT', error.message, { ...details, cause: error }) : error;
  }
  const { code, message, errno, syscall, range } = error;
  return new PeerDmaError(code as ErrorCode, message, {
    ...details,
    errno,
    syscall,
    range: range === undefined ? details.range : AddressRange.between(range.start, range.end),
    cause: details.cause ?? error.cause,
  });
}

function isNative(error: Error): error is NativeError {
  return error.name === 'NativeError';
}

/**
 * Calls the native binding. Its errors become a {@link PeerDmaError}.
 *
 * @internal
 */
export function native<T>(call: () => T, details?: ErrorDetails): T {
  try {
    return call();
  } catch (error) {
    throw fromNative(error, details);
  }
}

/**
 * {@link native} for calls that return a promise.
 *
 * @internal
 */
export async function nativeAsync<T>(call: () => Promise<T>, details?: ErrorDetails): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw fromNative(error, details);
  }
}
