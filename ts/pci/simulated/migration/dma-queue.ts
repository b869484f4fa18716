/** DMA writes that a simulated device has queued. It does them in order, one in a turn of the event loop. */

/** A DMA write that is not done yet. @internal */
export interface QueuedWrite {
  readonly iova: bigint;
  readonly bytes: Uint8Array;
}

/** @internal */
export class DmaQueue {
  readonly #write: (write: QueuedWrite) => void;
  #waiting: QueuedWrite[] = [];
  #isPaused = false;
  /** The write that is on its way to memory. */
  #inFlight: Promise<void> | undefined;

  /** @param write does one; must not throw */
  constructor(write: (write: QueuedWrite) => void) {
    this.#write = write;
  }

  /** The writes that have not begun. Complete while it is paused. */
  get waiting(): readonly QueuedWrite[] {
    return this.#waiting;
  }

  /** Number of writes that are not done. */
  get length(): number {
    return this.#waiting.length + (this.#inFlight === undefined ? 0 : 1);
  }

  push(write: QueuedWrite): void {
    this.#waiting.push(write);
    this.#issue();
  }

  /** Begins no more writes, and waits for the one in flight. */
  async pause(): Promise<void> {
    this.#isPaused = true;
    await this.#inFlight;
  }

  resume(): void {
    this.#isPaused = false;
    this.#issue();
  }

  /** Replaces all writes that have not begun. */
  replace(writes: readonly QueuedWrite[]): void {
    this.#waiting = [...writes];
    this.#issue();
  }

  #issue(): void {
    if (this.#isPaused || this.#inFlight !== undefined) return;
    const next = this.#waiting.shift();
    if (next === undefined) return;
    this.#inFlight = new Promise((resolve) => {
      setImmediate(() => {
        this.#write(next);
        this.#inFlight = undefined;
        resolve();
        this.#issue();
      });
    });
  }
}
