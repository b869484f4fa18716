/**
 * The properties of an NVMe controller and its doorbells, at their offsets in BAR 0.
 *
 * NVM Express Base Specification 2.1, 3.1.4; NVMe over PCIe Transport Specification 1.1, 3.1.2.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestBar } from '../../guest/bar.ts';

/** Offsets of the properties. */
const CAPABILITIES = 0x00n;
const VERSION = 0x08n;
const CONFIGURATION = 0x14n;
const STATUS = 0x1cn;
const ADMIN_QUEUE_ATTRIBUTES = 0x24n;
const ADMIN_SUBMISSION_QUEUE = 0x28n;
const ADMIN_COMPLETION_QUEUE = 0x30n;
const FIRST_DOORBELL = 0x1000n;

/** Fields of Controller Capabilities (3.1.4.1): the lowest bit of each, and the number of bits. */
const MAXIMUM_QUEUE_ENTRIES = [0n, 16] as const;
const TIMEOUT = [24n, 8] as const;
const DOORBELL_STRIDE = [32n, 4] as const;
const NVM_COMMAND_SET = [37n, 1] as const;
const MINIMUM_PAGE_SIZE = [48n, 4] as const;

/**
 * Controller Configuration (3.1.4.5) of a running controller.
 *
 * Enabled, the NVM command set, pages of 4096 bytes, entries of 2^6 bytes in submission queues and of 2^4 in completion
 * queues.
 */
const ENABLED = 0x0046_0001;
const NORMAL_SHUTDOWN = 0x4000;

/** Controller Status (3.1.4.6). */
const READY = 0x1;
const FATAL = 0x2;
const SHUTDOWN = 0xc;
const SHUTDOWN_COMPLETE = 0x8;
/** The value of a register of a function that does not respond. */
const GONE = 0xffff_ffff;

/** The unit of the ready timeout, in milliseconds. */
const TIMEOUT_UNIT = 500;

/** The controller as a whole: off, on, shut down. */
export class NvmeRegisters {
  /** The maximum number of entries of a queue. */
  readonly maximumQueueEntries: number;
  readonly #bar: GuestBar;
  /** The time in which the controller gets ready, or stops, in milliseconds. */
  readonly #patience: number;
  /** Bytes from one doorbell to the next. */
  readonly #stride: bigint;

  /** @throws {Error} for a controller without pages of 4096 bytes or without the NVM command set */
  constructor(bar: GuestBar) {
    const capabilities = bar.read64(CAPABILITIES);
    const field = ([lowest, bits]: readonly [bigint, number]) => Number(BigInt.asUintN(bits, capabilities >> lowest));
    if (field(MINIMUM_PAGE_SIZE) !== 0) throw new Error('the controller requires pages of more than 4096 bytes');
    if (field(NVM_COMMAND_SET) === 0) throw new Error('the controller has no NVM command set, so no blocks to read');
    this.#bar = bar;
    this.maximumQueueEntries = field(MAXIMUM_QUEUE_ENTRIES) + 1;
    this.#patience = Math.max(field(TIMEOUT), 1) * TIMEOUT_UNIT;
    this.#stride = 4n << BigInt(field(DOORBELL_STRIDE));
  }

  /** The version of the specification, such as `1.4.0` (3.1.4.2). */
  get version(): string {
    const version = this.#bar.read32(VERSION);
    return `${version >>> 16}.${(version >>> 8) & 0xff}.${version & 0xff}`;
  }

  /** Turns the controller off: it removes its queues, and does no more DMA. */
  async disable(): Promise<void> {
    this.#bar.write32(CONFIGURATION, 0);
    await this.#until('stop', (status) => (status & READY) === 0);
  }

  /**
   * Turns the controller on (3.5.1).
   *
   * It must be off. The admin queues have these guest addresses and numbers of entries.
   */
  async enable(submission: bigint, completion: bigint, entries: number): Promise<void> {
    this.#bar.write32(ADMIN_QUEUE_ATTRIBUTES, ((entries - 1) << 16) | (entries - 1));
    this.#bar.write64(ADMIN_SUBMISSION_QUEUE, submission);
    this.#bar.write64(ADMIN_COMPLETION_QUEUE, completion);
    this.#bar.write32(CONFIGURATION, ENABLED);
    await this.#until('get ready', (status) => {
      if ((status & FATAL) !== 0) throw new Error('the controller reports a fatal error');
      return (status & READY) !== 0;
    });
  }

  /** Shuts down the controller, as before the power is turned off (3.6.1). */
  async shutDown(): Promise<void> {
    this.#bar.write32(CONFIGURATION, ENABLED | NORMAL_SHUTDOWN);
    await this.#until('shut down', (status) => (status & SHUTDOWN) === SHUTDOWN_COMPLETE);
  }

  /** Writes the doorbell with the tail of a submission queue. */
  ringTail(queue: number, tail: number): void {
    this.#ring(2 * queue, tail);
  }

  /** Writes the doorbell with the head of a completion queue. */
  ringHead(queue: number, head: number): void {
    this.#ring(2 * queue + 1, head);
  }

  #ring(doorbell: number, value: number): void {
    this.#bar.write32(FIRST_DOORBELL + BigInt(doorbell) * this.#stride, value);
  }

  async #until(what: string, reached: (status: number) => boolean): Promise<void> {
    for (const deadline = Date.now() + this.#patience; ; await sleep(1)) {
      const status = this.#bar.read32(STATUS);
      if (status === GONE) throw new Error('the controller does not respond any more');
      if (reached(status)) return;
      if (Date.now() > deadline) {
        throw new Error(`the controller does not ${what}: its status is 0x${status.toString(16)}`);
      }
    }
  }
}
