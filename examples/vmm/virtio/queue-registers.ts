/**
 * The registers of the queues of a virtio device: the driver sets each up and enables it.
 */
import type { QueueAddresses } from './split-queue.ts';

/** The registers of one queue. Addresses are guest-physical. */
export class QueueRegisters {
  readonly #maxSize: number;
  size: number;
  descriptors = 0n;
  driver = 0n;
  device = 0n;
  isEnabled = false;

  constructor(maxSize: number) {
    this.#maxSize = maxSize;
    this.size = maxSize;
  }

  /** Sets the number of entries, if the queue can have it: a power of two. */
  setSize(size: number): void {
    if (size > 0 && size <= this.#maxSize && (size & (size - 1)) === 0) this.size = size;
  }

  /** The addresses that the driver has set. They are fixed while the queue is enabled. */
  get addresses(): QueueAddresses {
    const { size, descriptors, driver, device } = this;
    return { size, descriptors, driver, device };
  }
}
