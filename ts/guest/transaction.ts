/**
 * A transaction: each step registers its undo, and a failure undoes them in reverse.
 */
import { rollbackFailed } from '../dma/mapping-error.ts';
import { asError } from '../errors.ts';

/** Undoes one completed step as far as possible. Throws or returns the errors of what could not be undone. @internal */
export type Undo = () => void | readonly Error[] | Promise<void | readonly Error[]>;

/**
 * Runs all steps, or leaves everything as it was.
 *
 * @param run does the steps; pushes to `undo` after each step that has to be undone when a later one fails
 * @throws the error of `run`, after the steps before it are undone; `ERR_ROLLBACK_FAILED` if that fails
 * @internal
 */
export async function transaction<T>(run: (undo: Undo[]) => T | Promise<T>): Promise<T> {
  const undo: Undo[] = [];
  try {
    return await run(undo);
  } catch (error) {
    const problems = await undoAll(undo);
    throw problems.length === 0 ? error : rollbackFailed(error, problems);
  }
}

async function undoAll(undo: readonly Undo[]): Promise<Error[]> {
  const problems: Error[] = [];
  for (const step of undo.toReversed()) {
    try {
      for (const problem of (await step()) ?? []) problems.push(problem);
    } catch (thrown) {
      problems.push(asError(thrown));
    }
  }
  return problems;
}
