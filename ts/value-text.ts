/**
 * Values in error messages.
 */

/** The longest text of a value in a message. */
const MAX_CHARACTERS = 100;
/** Bigints from here on have no digits in a message. No valid one has more than 64 bits. */
const LARGE = 1n << 256n;

/**
 * A value of a caller as text. Numbers have their type, since `5` and `5n` print alike. Accepts every value: some
 * objects cannot be converted to a string, others have one of gigabytes.
 *
 * @internal
 */
export function valueText(value: unknown): string {
  if (typeof value === 'bigint') return digitsOf(value, () => `the bigint ${value}n`);
  if (typeof value === 'number') return `the number ${value}`;
  try {
    const text = isList(value) ? Object.prototype.toString.call(value) : String(value);
    return text.length > MAX_CHARACTERS ? `${text.slice(0, MAX_CHARACTERS)}…` : text;
  } catch {
    return 'an object without a text';
  }
}

/** The result of `text`, unless the value has more than 256 bits. @internal */
export function digitsOf(value: bigint, text: () => string): string {
  return -LARGE < value && value < LARGE ? text() : 'a bigint of more than 256 bits';
}

/** Whether `String(value)` is the text of all its elements. */
function isList(value: unknown): boolean {
  return Array.isArray(value) || ArrayBuffer.isView(value);
}
