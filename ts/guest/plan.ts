/**
 * A plan: primitive steps with their inverses, applied in order, undone in reverse.
 */
import { asError } from '../errors.ts';
import { rollbackFailed } from '../dma/mapping-error.ts';

/** @internal */
export interface Step {
  /** Does all of the step or, if it throws, nothing of it, except retries of what failed in an earlier change. */
  readonly run: () => void | Promise<void>;
  /** Undoes {@link Step.run} as far as possible. @returns the errors of what could not be undone */
  readonly undo: () => void | readonly Error[] | Promise<readonly Error[]>;
}

/**
 * Applies all steps, or leaves everything as it was.
 *
 * @throws the error of the failing step, after the steps before it are undone; `ERR_ROLLBACK_FAILED` if that fails
 * @internal
 */
export async function applyPlan(steps: readonly Step[]): Promise<void> {
  const done: Step[] = [];
  for (const step of steps) {
    try {
      const pending = step.run();
      if (pending !== undefined) await pending;
      done.push(step);
    } catch (error) {
      const problems = await undoPlan(done);
      throw problems.length === 0 ? error : rollbackFailed(error, problems);
    }
  }
}

async function undoPlan(done: readonly Step[]): Promise<Error[]> {
  const problems: Error[] = [];
  for (const step of done.toReversed()) {
    try {
      for (const problem of (await step.undo()) ?? []) problems.push(problem);
    } catch (thrown) {
      problems.push(asError(thrown));
    }
  }
  return problems;
}
