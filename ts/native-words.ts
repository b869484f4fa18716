/**
 * Arrays of 64-bit words for calls of the native core.
 */

/** Up to this many words, there is one array for each length. */
const SHORT = 8;
/** Up to this many words, an array is part of one that is made once: enough for part of a long batch. */
const LONG = 4096;

const short: BigUint64Array[] = [];
let long: BigUint64Array | undefined;

/**
 * An array to be filled and passed to the native core, which reads it before the call returns. The next call fills the
 * same memory: the engine moves the elements of a new short array before native code can read them, and it collects
 * garbage earlier when there are many long ones.
 *
 * @internal
 */
export function nativeWords(length: number): BigUint64Array {
  if (length > LONG) return new BigUint64Array(length);
  if (length > SHORT) return (long ??= new BigUint64Array(LONG)).subarray(0, length);
  return (short[length] ??= new BigUint64Array(length));
}
