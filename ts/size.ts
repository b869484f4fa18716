/**
 * Sizes with binary units.
 */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** A size in the largest unit that divides it, such as `16 MiB`. @internal */
export function sizeOf(bytes: bigint): string {
  let [value, unit] = [bytes, 0];
  while (value >= 1024n && value % 1024n === 0n && unit < UNITS.length - 1) [value, unit] = [value / 1024n, unit + 1];
  return `${value} ${UNITS[unit]}`;
}

/** A size in the largest unit in which it is at least 1, with two decimals: `1.94 GiB`. @internal */
export function roundedSize(bytes: bigint): string {
  const unit = Math.min(Math.floor((bytes.toString(2).length - 1) / 10), UNITS.length - 1);
  const size = Number(bytes) / 1024 ** unit;
  return `${Number.isInteger(size) ? size : size.toFixed(2)} ${unit === 0 ? 'bytes' : UNITS[unit]}`;
}

/** The bytes of `16G`, `512MiB`, `1T` or a plain number; `undefined` for other text. @internal */
export function bytesOf(text: string): bigint | undefined {
  const [, digits, unit = ''] = /^(\d{1,19})(?:([KMGTPE])(?:iB)?)?$/i.exec(text) ?? [];
  if (digits === undefined) return undefined;
  return BigInt(digits) << BigInt(10 * ' KMGTPE'.indexOf(unit.toUpperCase() || ' '));
}
