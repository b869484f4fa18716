/**
 * Functions that end connections: each once, and all of them even if one fails.
 */
import { throwIf } from '../errors.ts';

/** Ends a connection. Later calls do nothing, unless a call has failed. @internal */
export type Ender = () => void;

/** Returns a function that calls `end` until it has succeeded once. @internal */
export function once(end: () => void): Ender {
  let isEnded = false;
  return () => {
    if (isEnded) return;
    end();
    isEnded = true;
  };
}

/** Calls all of these. @throws the first error, after all were called @internal */
export function endAll(ends: Iterable<Ender>): void {
  const errors: unknown[] = [];
  for (const end of ends) {
    try {
      end();
    } catch (error) {
      errors.push(error);
    }
  }
  throwIf(errors[0]);
}
