/**
 * Calls that wait for a file, in the order of their start.
 */
import type { AbortSignalLike } from './abort.ts';

interface WaitingCall {
  /** Continues the call. @returns whether it is complete */
  readonly attempt: () => boolean;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** @internal */
export class WaitingCalls {
  readonly #calls: WaitingCall[] = [];
  readonly #onChange: () => void;

  /** @param onChange called after a call has begun to wait or was aborted */
  constructor(onChange: () => void) {
    this.#onChange = onChange;
  }

  get isEmpty(): boolean {
    return this.#calls.length === 0;
  }

  /**
   * Waits until the calls before it have ended and `attempt` returns true.
   *
   * @param onAbort called after the call was rejected with the reason of the signal
   * @throws the error of `attempt`, which ends only this call; the reason of the signal
   */
  async wait(attempt: () => boolean, signal: AbortSignalLike | undefined, onAbort: () => void): Promise<void> {
    let end = (): boolean => false;
    try {
      await new Promise<void>((resolve, reject) => {
        const call: WaitingCall = { attempt, resolve, reject };
        const abort = (): void => {
          if (!end()) return;
          reject(signal?.reason);
          onAbort();
          this.#onChange();
        };
        end = () => {
          signal?.removeEventListener('abort', abort);
          const index = this.#calls.indexOf(call);
          if (index !== -1) this.#calls.splice(index, 1);
          return index !== -1;
        };
        signal?.addEventListener('abort', abort);
        this.#calls.push(call);
        this.#onChange();
      });
    } finally {
      end();
    }
  }

  /** Continues the calls, up to one that has to wait further. */
  progress(): void {
    for (let call = this.#calls[0]; call !== undefined; call = this.#calls[0]) {
      try {
        if (!call.attempt()) return;
        call.resolve();
      } catch (error) {
        call.reject(error);
      }
      this.#calls.shift();
    }
  }

  /** Ends all calls with an error. */
  rejectAll(error: unknown): void {
    for (const { reject } of this.#calls.splice(0)) reject(error);
  }
}
