/**
 * Calls of the native core, and the conversion of its errors.
 */
import { AddressRange } from './address-range.ts';
import { type ErrorCode, type ErrorDetails, PeerDmaError, isError } from './errors.ts';

/** `code|errno|syscall|range|text`: the form of all error messages of the native core. */
const NATIVE_MESSAGE = /^(ERR_[A-Z_]+)\|([A-Z0-9]*)\|([^|]*)\|(?:(0x[0-9a-f]+)\.\.(0x[0-9a-f]+))?\|(.*)$/s;

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
  const parts = NATIVE_MESSAGE.exec(error.message);
  if (parts === null) {
    const wrongType = 'code' in error && WRONG_TYPE.test(String(error.code));
    return wrongType ? new PeerDmaError('ERR_INVALID_ARGUMENT', error.message, { ...details, cause: error }) : error;
  }
  const [, code, errno, syscall, start, end, text = ''] = parts;
  return new PeerDmaError(code as ErrorCode, text, {
    ...details,
    errno: errno || undefined,
    syscall: syscall || undefined,
    range: start === undefined || end === undefined ? details.range : AddressRange.between(BigInt(start), BigInt(end)),
    cause: details.cause ?? error.cause,
  });
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
