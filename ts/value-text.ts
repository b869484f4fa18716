/**
 * Values in error messages.
 */

/**
 * A value with its type when the digits do not say it: `5` and `5n` print alike, and either is wrong for the other.
 *
 * @internal
 */
export function valueText(value: unknown): string {
  if (typeof value === 'bigint') return `the bigint ${value}n`;
  if (typeof value === 'number') return `the number ${value}`;
  return String(value);
}
