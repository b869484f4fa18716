/**
 * Registrations of handlers, connections and callbacks, and their removal.
 */
import { throwIf } from './errors.ts';
import { INSPECT, objectText } from './object-text.ts';

/** A handler, a connection, a function on a bus or a callback that was added to an object. */
export class Registration {
  readonly #end: () => void;
  #isRemoved = false;

  /** @param end is called until it has succeeded once @internal */
  constructor(end: () => void) {
    this.#end = end;
  }

  /** Removes what was added. Idempotent; a call that fails can be repeated. */
  remove(): void {
    if (this.#isRemoved) return;
    this.#end();
    this.#isRemoved = true;
  }

  /** As {@link Registration.remove}. */
  [Symbol.dispose](): void {
    this.remove();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'Registration', () => ['', this.#isRemoved ? 'removed' : 'active']);
  }
}

/** Calls all of these. @throws the first error, after all were called @internal */
export function endAll(ends: Iterable<() => void>): void {
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

/** Calls `end` after another error, which counts more than an error of `end`. @internal */
export function endQuietly(end: () => void): void {
  try {
    end();
  } catch {
    // The caller throws the first error.
  }
}

/** Removes all of these. @throws the first error, after all were removed @internal */
export function removeAll(registrations: Iterable<Registration>): void {
  endAll([...registrations].map((one) => () => one.remove()));
}
