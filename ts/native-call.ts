/**
 * Calls into the native core, and the one converter of what it throws.
 */
import { AddressRange } from './address-range.ts';
import { type ErrorCode, type ErrorDetails, PeerDmaError, isError } from './errors.ts';

/** `code|errno|syscall|range|text`: the form of every message the native core throws. */
const NATIVE_MESSAGE = /^(ERR_[A-Z_]+)\|([A-Z0-9]*)\|([^|]*)\|(?:(0x[0-9a-f]+)\.\.(0x[0-9a-f]+))?\|(.*)$/s;

/** The code of what napi itself throws at an argument of the wrong type. */
const WRONG_TYPE = /^(InvalidArg|[A-Z][A-Za-z]*Expected)$/;

/**
 * Turns what the native binding threw into a {@link PeerDmaError}, adding what only the caller knows.
 * Errors that are none of the binding's (a bug, an out-of-memory `RangeError`) come back as they are.
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
 * Calls into the native binding; what it throws becomes a {@link PeerDmaError}.
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
