/**
 * The changes of the shared ranges, as one consumer receives them.
 */
import type { AbortSignalLike } from '../abort.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import type { ReceivedRanges, SharingChange } from './shared-ranges.ts';

type Result = IteratorResult<SharingChange, void>;

/** Unlike a generator, it can be ended while `next` waits. @internal */
export class SharingChanges implements AsyncGenerator<SharingChange, void, void> {
  readonly #space: GuestAddressSpace;
  readonly #received: ReceivedRanges;
  readonly #signal: AbortSignalLike | undefined;
  /** The last call of `next`: calls are answered in order. */
  #last: Promise<unknown> = Promise.resolve();
  #wake = (): void => {};
  #hasStarted = false;
  #isEnded = false;
  /** The reason of the signal, until a call of `next` has thrown it. */
  #aborted: { readonly reason: unknown } | undefined;

  constructor(space: GuestAddressSpace, received: ReceivedRanges, signal: AbortSignalLike | undefined) {
    this.#space = space;
    this.#received = received;
    this.#signal = signal;
  }

  next(): Promise<Result> {
    const result = this.#last.then(() => this.#next());
    this.#last = result.catch(() => {});
    return result;
  }

  /** Ends the iteration, and releases all files. */
  async return(): Promise<Result> {
    this.#end();
    return { done: true, value: undefined };
  }

  /** As {@link SharingChanges.return}. @throws the error */
  async throw(error: unknown): Promise<Result> {
    this.#end();
    throw error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async #next(): Promise<Result> {
    this.#start();
    this.#received.releaseRemoved();
    for (;;) {
      if (this.#aborted !== undefined) {
        const { reason } = this.#aborted;
        this.#aborted = undefined;
        throw reason;
      }
      if (this.#isEnded) return { done: true, value: undefined };
      const value = this.#received.update(this.#space.map.flat);
      if (value !== undefined) return { done: false, value };
      if (this.#space.isDropped) this.#end();
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #start(): void {
    if (this.#hasStarted || this.#isEnded) return;
    this.#hasStarted = true;
    if (this.#signal?.aborted === true) return this.#onAbort();
    this.#space.watchers.add(this.#onChange);
    this.#signal?.addEventListener('abort', this.#onAbort);
  }

  #end(): void {
    this.#isEnded = true;
    this.#space.watchers.delete(this.#onChange);
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#received.releaseAll();
    this.#wake();
  }

  readonly #onChange = (): void => {
    if (this.#space.isDropped) this.#received.releaseAll();
    this.#wake();
  };

  readonly #onAbort = (): void => {
    this.#aborted = { reason: this.#signal?.reason };
    this.#end();
  };
}
