/**
 * Checks of the arguments of callers.
 */
import { constants } from 'node:buffer';
import { types } from 'node:util';
import { hex } from './address-range.ts';
import { PeerDmaError, asError } from './errors.ts';
import { requireBigint, requireNumber } from './number-types.ts';
import { valueText } from './value-text.ts';

/** A number of bytes. @param name of the parameter @internal */
export function requireCount(count: number, name = 'length'): number {
  requireNumber(count, name);
  if (Number.isSafeInteger(count) && count >= 0) return count;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"${name}" is a whole number of bytes, not ${valueText(count)}`);
}

/** A value of 64 bits, such as an offset. @param name of the parameter @internal */
export function requireUnsigned(value: bigint, name: string): bigint {
  requireBigint(value, name);
  if (value < 0n) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"${name}" is a non-negative bigint, not ${valueText(value)}`);
  }
  if (value < 1n << 64n) return value;
  throw new PeerDmaError('ERR_OUT_OF_RANGE', `"${name}" is less than 2^64, not ${valueText(value)}`);
}

/** A whole number from 0 on, such as a descriptor. @param name of the parameter @internal */
export function requireIndex(value: number, name: string): number {
  requireNumber(value, name);
  if (Number.isInteger(value) && value >= 0 && value < 2 ** 31) return value;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"${name}" is a whole number from 0 on, not ${valueText(value)}`);
}

/** Checks that `length` bytes at `offset` end within `limit`. Callers allocate memory for them only then. @internal */
export function requireAccess(offset: bigint, length: number, limit: bigint, what: string): void {
  requireCount(length);
  requireUnsigned(offset, 'offset');
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

/** From this many bytes on, clearing an array costs much of what filling it does. */
const LARGE = 65_536;

/**
 * An array for bytes to be read. It is not cleared: the caller fills all of it or drops it.
 *
 * @param length bytes
 * @param what their owner, for messages
 * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` for more than an `ArrayBuffer` can have, `ERR_SYSTEM` without free
 * memory
 * @internal
 */
export function newBytes(length: number, what: string): Uint8Array<ArrayBuffer> {
  requireViewable(BigInt(requireCount(length)), what);
  try {
    return length < LARGE ? new Uint8Array(length) : new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
  } catch (cause) {
    throw noMemory(length, what, cause);
  }
}

/**
 * A copy that owns its memory, which is not cleared before.
 *
 * @param what the owner of the bytes, for messages
 * @throws {PeerDmaError} `ERR_SYSTEM` without free memory
 * @internal
 */
export function copyOf(bytes: Uint8Array, what: string): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(bytes);
  } catch (cause) {
    throw noMemory(bytes.length, what, cause);
  }
}

function noMemory(length: number, what: string, cause: unknown): PeerDmaError {
  const message = `${what}: no memory is left for ${length} bytes. Read fewer at once`;
  return new PeerDmaError('ERR_SYSTEM', message, { cause });
}

const typedArray = Object.getPrototypeOf(Uint8Array.prototype) as object;

/** The intrinsic getter of typed arrays: a caller's class may override it. */
function getterOf<K extends 'buffer' | 'byteOffset' | 'byteLength'>(name: K): (array: Uint8Array) => Uint8Array[K] {
  const getter = Object.getOwnPropertyDescriptor(typedArray, name)?.get as (this: Uint8Array) => Uint8Array[K];
  return (array) => getter.call(array);
}

const bufferOf = getterOf('buffer');
const offsetOf = getterOf('byteOffset');
const lengthOf = getterOf('byteLength');

/**
 * Throws for a SharedArrayBuffer. An optimised call of it takes a third of `types.isSharedArrayBuffer`, which is C++.
 */
const unsharedLength = Object.getOwnPropertyDescriptor(ArrayBuffer.prototype, 'byteLength')?.get as () => number;

function isShared(buffer: ArrayBufferLike): boolean {
  try {
    unsharedLength.call(buffer);
    return false;
  } catch {
    return true;
  }
}

/**
 * The length of a `Uint8Array` by the intrinsic getter; 0 for a detached buffer. Rejects bytes of a SharedArrayBuffer,
 * which may change during a copy.
 *
 * @internal
 */
export function requireByteLength(bytes: Uint8Array): number {
  if (types.isUint8Array(bytes)) {
    const length = lengthOf(bytes);
    if (length === 0 || !isShared(bufferOf(bytes))) return length;
  }
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'bytes are a Uint8Array, and not of shared memory');
}

/**
 * Returns the bytes as a plain `Uint8Array`. A class of the caller could keep the arguments of its methods.
 *
 * @throws {PeerDmaError} as {@link requireByteLength}
 * @internal
 */
export function requireBytes(bytes: Uint8Array): Uint8Array {
  const length = requireByteLength(bytes);
  return length === 0 ? new Uint8Array() : new Uint8Array(bufferOf(bytes), offsetOf(bytes), length);
}

/** @internal */
export function requireBoolean(value: boolean, what: string): void {
  if (typeof value === 'boolean') return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${what} is true or false, not ${valueText(value)}`);
}

/**
 * Reads named arguments once each. A getter of a caller may throw, or return another value the next time.
 *
 * @param what a name of the object, for messages
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a value that is not an object, or has an unreadable property
 * @internal
 */
export function readOptions<T extends object, const K extends keyof T & string>(
  options: T,
  names: readonly K[],
  what = 'the arguments',
): Pick<T, K> {
  if (typeof options !== 'object' || options === null) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `expected an object for ${what}, not ${valueText(options)}`);
  }
  const found: Partial<Pick<T, K>> = {};
  for (const name of names) {
    const value = readable(`${name} of ${what}`, () => options[name]);
    if (value !== undefined) found[name] = value;
  }
  return found as Pick<T, K>; // by the loop, which reads each name
}

/**
 * The own properties of an object with names of the caller. Typed arrays are rejected: the names of millions of
 * elements would take memory that the array does not.
 *
 * @throws {PeerDmaError} as {@link readOptions}
 * @internal
 */
export function readEntries<T>(object: Readonly<Record<string | number, T>>, what: string): [string, T][] {
  if (typeof object !== 'object' || object === null || ArrayBuffer.isView(object)) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `expected an object for ${what}, not ${valueText(object)}`);
  }
  return readable(what, () => Object.entries(object));
}

/**
 * The maximum length of a list: more than a memory map has mappings or a host has devices. A copy of that many holes
 * takes 128 MiB.
 */
const MAX_ELEMENTS = 2 ** 24;

/**
 * A copy of a caller's list. Holes are `undefined`. Reads the length once, before it copies: an array of 2^32 - 1 holes
 * takes no memory, its copy takes all of it.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a value that is not an array, is too long, or cannot be read
 * @internal
 */
export function readArray<T>(array: readonly T[], what: string): T[] {
  return readable(what, () => {
    if (!Array.isArray(array)) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `expected an array for ${what}, not ${valueText(array)}`);
    }
    const { length } = array; // a proxy may return any value
    if (Number.isInteger(length) && length >= 0 && length <= MAX_ELEMENTS) {
      return Array.from({ length }, (_, index) => array[index] as T);
    }
    throw new PeerDmaError(
      'ERR_INVALID_ARGUMENT',
      `${what}: expected an array of at most ${MAX_ELEMENTS} elements, not ${valueText(length)}`,
    );
  });
}

/**
 * Reads data of a caller. An exception while reading is an error of the data.
 *
 * @param what a name of the data, for messages
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`; what `read` throws of this class
 * @internal
 */
export function readable<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (thrown) {
    throw unreadable(what, thrown);
  }
}

/** The error of {@link readable}. @internal */
export function unreadable(what: string, thrown: unknown): PeerDmaError {
  const error = asError(thrown);
  if (error instanceof PeerDmaError) return error;
  return new PeerDmaError('ERR_INVALID_ARGUMENT', `${what} cannot be read: ${error.message}`, { cause: thrown });
}
