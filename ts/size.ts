/**
 * Sizes as people write them.
 */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** `16 MiB`: in the largest unit of which it is a multiple. @internal */
export function sizeOf(bytes: bigint): string {
  let [value, unit] = [bytes, 0];
  while (value >= 1024n && value % 1024n === 0n && unit < UNITS.length - 1) [value, unit] = [value / 1024n, unit + 1];
  return `${value} ${UNITS[unit]}`;
}

/** Of `16G`, `512MiB`, `1T` or plain bytes, in powers of 1024; `undefined` for what is no size. @internal */
export function bytesOf(text: string): bigint | undefined {
  const [, digits, unit = ''] = /^(\d{1,19})(?:([KMGTPE])(?:iB)?)?$/i.exec(text) ?? [];
  if (digits === undefined) return undefined;
  return BigInt(digits) << BigInt(10 * ' KMGTPE'.indexOf(unit.toUpperCase() || ' '));
}
