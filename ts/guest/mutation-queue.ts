/**
 * One mutation at a time, in call order.
 */
import { PeerDmaError } from '../errors.ts';

/** @internal */
export class MutationQueue {
  readonly #owner: string;
  #last: Promise<unknown> = Promise.resolve();
  #closed = false;

  /** @param owner for the message of `ERR_CLOSED` */
  constructor(owner: string) {
    this.#owner = owner;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Runs a mutation after all that were called before it, whether those succeeded or not.
   *
   * @throws {PeerDmaError} `ERR_CLOSED` after {@link MutationQueue.close}
   */
  run<T>(mutation: () => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new PeerDmaError('ERR_CLOSED', `${this.#owner} is closed`));
    return this.runAlways(mutation);
  }

  /** Rejects further mutations, waits for queued ones, then runs the last one. */
  close<T>(mutation: () => Promise<T>): Promise<T> {
    this.#closed = true;
    return this.runAlways(mutation);
  }

  /** Runs a mutation in its turn, closed or not. */
  runAlways<T>(mutation: () => Promise<T>): Promise<T> {
    const result = this.#last.then(mutation);
    this.#last = result.catch(() => {}); // the caller handles the rejection; the next mutation runs anyway
    return result;
  }
}
