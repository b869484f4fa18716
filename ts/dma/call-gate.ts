/**
 * Gates the calls of one target. Closing the target ends the pending call and prevents further calls.
 */

/** @internal */
export class CallGate {
  #closed = false;
  /** Settles the pending call. */
  #settle: (() => void) | undefined;

  /** Whether the target is closed, and all of its mappings with it. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Settles the pending call. Later calls are skipped and count as done. */
  close(): void {
    this.#closed = true;
    this.#settle?.();
  }

  /**
   * Calls the target, unless it is closed. Settles when the call does, or when the target is closed.
   *
   * @returns what `call` returns; `undefined` when the target is closed
   * @throws what `call` throws
   */
  run<T>(call: () => T | Promise<T>): T | undefined | Promise<T | undefined> {
    if (this.#closed) return undefined;
    const pending = call();
    if (!isThenable(pending)) return pending;
    return new Promise<T | undefined>((resolve, reject) => {
      this.#settle = () => resolve(undefined);
      if (this.#closed) resolve(undefined); // the target was closed within its call
      Promise.resolve(pending).then(resolve, reject); // also handles a rejection after the target was closed
    }).finally(() => (this.#settle = undefined));
  }
}

function isThenable<T>(value: T | Promise<T>): value is Promise<T> {
  return typeof value === 'object' && value !== null && 'then' in value;
}
