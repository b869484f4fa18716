/**
 * Documents of so many devices that no string can hold them.
 */
import { PeerDmaError } from '../../errors.ts';

/**
 * Makes a document.
 *
 * @param devices how many devices the matrix in it is of
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` when the document is longer than a string can be
 */
export function wholeDocument(what: string, devices: number, make: () => string): string {
  try {
    return make();
  } catch (error) {
    // V8 has no code for it. Its text is the same from Node 20 on.
    if (!(error instanceof RangeError && error.message === 'Invalid string length')) throw error;
    const text = `${what} of ${devices} devices is longer than a string can be`;
    const remedy = 'Name fewer devices, or use --json, which has no limit';
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${text}. ${remedy}`, { cause: error });
  }
}
