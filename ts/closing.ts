/**
 * A close that may be called again: while it is under way, when it is done, and when it has failed.
 */

/** @internal */
export class Closing {
  #under: Promise<void> | undefined;

  /** Closes, unless that is under way or done. After a failure, which everybody hears who has asked, the next call tries again. */
  once(close: () => Promise<void>): Promise<void> {
    this.#under ??= close().catch((error: unknown) => {
      this.#under = undefined;
      throw error;
    });
    return this.#under;
  }
}
