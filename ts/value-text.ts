/**
 * Values in error messages.
 */

/**
 * A value that a caller passed, as text, with its type when the digits do not say it: `5` and `5n` print alike, and
 * either is wrong for the other. Takes every value: some objects have no text.
 *
 * @internal
 */
export function valueText(value: unknown): string {
  if (typeof value === 'bigint') return `the bigint ${value}n`;
  if (typeof value === 'number') return `the number ${value}`;
  try {
    return String(value);
  } catch {
    return 'an object without a text';
  }
}
