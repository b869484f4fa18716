/**
 * Checks of the type of a numeric argument.
 *
 * Addresses, offsets in memory, sizes and values of 64 bits are bigints. Counts, lengths of byte arrays, widths,
 * indexes and offsets in config space are numbers.
 */
import { PeerDmaError } from './errors.ts';
import { valueText } from './value-text.ts';

/**
 * Rejects every value that is not a bigint: `"length" is a bigint (4096n), not the number 4096`.
 *
 * @param name of the parameter
 * @param bdf PCI address for the error; not an object, since registers are accessed often
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export function requireBigint(value: bigint, name: string, bdf?: string): void {
  if (typeof value === 'bigint') return;
  const given: unknown = value;
  const same = Number.isSafeInteger(given) ? ` (${String(given)}n)` : '';
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"${name}" is a bigint${same}, not ${valueText(given)}`, { bdf });
}

/**
 * Rejects every value that is not a number: `"length" is a number (16), not the bigint 16n`.
 *
 * @param name of the parameter
 * @param bdf PCI address for the error; not an object, since registers are accessed often
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export function requireNumber(value: number, name: string, bdf?: string): void {
  if (typeof value === 'number') return;
  const given: unknown = value;
  const same = typeof given === 'bigint' && Number.isSafeInteger(Number(given)) ? ` (${given})` : '';
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"${name}" is a number${same}, not ${valueText(given)}`, { bdf });
}
