/**
 * Writes the document of a command to the file that the command line names.
 */
import { writeFileSync } from 'node:fs';
import { PeerDmaError, asError } from '../errors.ts';
import { STANDARD_STREAM } from './arguments.ts';
import type { Terminal } from './command.ts';

/**
 * Writes a document to a file, or to standard output for `-`.
 *
 * @throws {PeerDmaError} `ERR_SYSTEM` with errno when the file cannot be written
 */
export function save(file: string, content: string, { stdout }: Terminal): void {
  if (file === STANDARD_STREAM) return stdout.document(content);
  try {
    writeFileSync(file, content);
  } catch (thrown) {
    const error: NodeJS.ErrnoException = asError(thrown);
    const message = `${file}: write failed: ${error.message}`;
    throw new PeerDmaError('ERR_SYSTEM', message, { errno: error.code, cause: thrown });
  }
}
