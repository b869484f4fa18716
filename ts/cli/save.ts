/**
 * Writes what a command makes to the file that the command line names.
 */
import { writeFileSync } from 'node:fs';
import { PeerDmaError, asError } from '../errors.ts';
import { STANDARD_STREAM } from './arguments.ts';
import type { Terminal } from './command.ts';

/**
 * Writes a document to a file, or to standard output for `-`.
 *
 * @throws {PeerDmaError} `ERR_SYSTEM` with errno when the file can't be written
 */
export function save(file: string, content: string, { stdout }: Terminal): void {
  if (file === STANDARD_STREAM) return stdout.document(content);
  try {
    writeFileSync(file, content);
  } catch (thrown) {
    const error: NodeJS.ErrnoException = asError(thrown);
    throw new PeerDmaError('ERR_SYSTEM', `can't write ${file}: ${error.message}`, { errno: error.code, cause: thrown });
  }
}
