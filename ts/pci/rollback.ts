/** Rolls back a change that failed halfway. */
import { rollbackFailed } from '../dma/mapping-error.ts';
import { asError } from '../errors.ts';

/** Undoes one step of a change; throws if it cannot. @internal */
export type Undo = () => unknown;

/**
 * Undoes the completed steps of a failed change, in reverse order.
 *
 * @returns the error to throw: the cause, or `ERR_ROLLBACK_FAILED` if a step could not be undone
 * @internal
 */
export async function rollBack(cause: unknown, undo: readonly Undo[]): Promise<unknown> {
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
