/**
 * A virtio device without its transport (Virtual I/O Device specification 1.2).
 */
import type { SplitQueue } from './split-queue.ts';

/** The features of every device here: that of version 1, by its bit (6). */
export const VERSION_1: bigint = 1n << 32n;

/** A kind of device. The transport calls it. */
export interface VirtioDevice {
  /** Its number (5). */
  readonly type: number;
  /** Features of this kind that it offers, by their bits. */
  readonly features: bigint;
  /** The features without which it does not work. */
  readonly required: bigint;
  /** The most entries of each of its queues, powers of two. */
  readonly queueSizes: readonly number[];
  /** Its configuration, which the driver reads. */
  config(): Uint8Array;
  /** Registers the callback for changes of the configuration. */
  watchConfig(changed: () => void): void;
  /**
   * Answers the buffers of a queue, until it has none or is ended. No further call is made before the promise resolves.
   *
   * @throws an error of the queue or of guest memory for a driver that violates the specification
   */
  process(queue: SplitQueue): Promise<void>;
}
