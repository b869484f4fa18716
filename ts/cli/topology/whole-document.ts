/**
 * Reports documents that exceed the length limit of a string.
 */
import { PeerDmaError } from '../../errors.ts';

/**
 * Creates a document.
 *
 * @param devices number of devices in its matrix
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` when the document exceeds the length limit of a string
 */
export function wholeDocument(what: string, devices: number, make: () => string): string {
  try {
    return make();
  } catch (error) {
    // V8 has no error code for it. The message is the same since Node 20.
    if (!(error instanceof RangeError && error.message === 'Invalid string length')) throw error;
    const text = `${what} of ${devices} devices exceeds the length limit of a string`;
    const remedy = 'Name fewer devices, or use --json, which has no limit';
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${text}. ${remedy}`, { cause: error });
  }
}
