/**
 * Values in error messages.
 */

/**
 * A value with its type where the digits alone do not say it: `5` and `5n` print alike, and where one is due the other is wrong.
 *
 * @internal
 */
export function valueText(value: unknown): string {
  if (typeof value === 'bigint') return `the bigint ${value}n`;
  if (typeof value === 'number') return `the number ${value}`;
  return String(value);
}
