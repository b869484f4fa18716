/**
 * Errors with the fields of those of the native core.
 */
import type { NativeError } from '#native';

/** Creates an error for a fake of the native core. */
export function nativeError(
  code: string,
  message: string,
  fields: Pick<NativeError, 'errno' | 'syscall' | 'range'> = {},
): NativeError {
  return Object.assign(new Error(message), { name: 'NativeError' as const, code, ...fields });
}

/** Returns the code and errno of a thrown error, such as `ERR_MAP_FAILED EEXIST`, or its code. */
export function codeAndErrno(thrown: unknown): string {
  const { code, errno } = thrown as Partial<NativeError>;
  return errno === undefined ? String(code) : `${code} ${errno}`;
}
