/**
 * A close that can be called several times, and repeated after a failure.
 */

/** @internal */
export class Closing {
  #under: Promise<void> | undefined;

  /** Closes once. All callers get a failure; the next call after it tries again. */
  once(close: () => Promise<void>): Promise<void> {
    this.#under ??= close().catch((error: unknown) => {
      this.#under = undefined;
      throw error;
    });
    return this.#under;
  }
}
