/**
 * Arrays of 64-bit words for calls of the native core.
 */

/** Up to this many words, an array is made once and used again. */
const REUSED = 8;

const reused: BigUint64Array[] = [];

/**
 * An array to be filled and passed to the native core, which reads it before the call returns. Short ones are used
 * again by the next call: the engine moves the elements of a new short array before native code can read them, which
 * costs more than most calls.
 *
 * @internal
 */
export function nativeWords(length: number): BigUint64Array {
  if (length > REUSED) return new BigUint64Array(length);
  return (reused[length] ??= new BigUint64Array(length));
}
