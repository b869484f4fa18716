/**
 * Undoes a change that fails after some of its parts were made.
 */
import { rollbackFailed } from '../dma/mapping-error.ts';
import { asError } from '../errors.ts';

/** Undoes a part of a change; throws what could not be undone. @internal */
export type Undo = () => unknown;

/**
 * Undoes the parts of a change that were made before it failed, the last first.
 *
 * @returns the error to throw: the cause, or `ERR_ROLLBACK_FAILED` if a part could not be undone
 * @internal
 */
export async function undone(cause: unknown, undo: readonly Undo[]): Promise<unknown> {
  const problems: Error[] = [];
  for (const part of undo.toReversed()) {
    try {
      await part();
    } catch (thrown) {
      problems.push(asError(thrown));
    }
  }
  return problems.length === 0 ? cause : rollbackFailed(cause, problems);
}
