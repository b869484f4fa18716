/**
 * The virtqueues of a back end: which of them run, and those that wait for their memory.
 */
import type { AddressRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { InflightBuffer, RECORDED_QUEUE_SIZE } from './inflight-buffer.ts';
import type { MemoryTable } from './memory-table.ts';
import type { Agreement } from './negotiation.ts';
import { SIZES, decodeQueueState, queueState } from './payloads.ts';
import { PROTOCOL } from './requests.ts';
import type { Queue } from './queue.ts';
import type { Session } from './session.ts';

/** The most queues of a device: a message has 8 bits for their index. @internal */
export const MAX_QUEUES = 256;

/** Bytes before the index in the used ring (Virtio 1.3, 2.7.8). */
const USED_INDEX = 2n;

/** @internal */
export class Queues {
  readonly #name: string;
  readonly #memory: MemoryTable;
  readonly #queues = new Map<number, Queue>();
  readonly #inflight = new InflightBuffer();

  constructor(name: string, memory: MemoryTable) {
    this.#name = name;
    this.#memory = memory;
  }

  get isEmpty(): boolean {
    return this.#queues.size === 0;
  }

  /** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` */
  at(index: number): Queue {
    const queue = this.#queues.get(index);
    if (queue !== undefined) return queue;
    throw this.#error('ERR_INVALID_ARGUMENT', `queue ${index} is not set. Call setQueue first`);
  }

  /**
   * Adds a queue that does not run yet.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for an index in use; `ERR_NOT_MAPPED` if an area does not lie within
   * one mapping; `ERR_UNSUPPORTED` if it is too large for the record of a back end that is replaced
   */
  add(queue: Queue, agreement: Agreement): void {
    if (this.#queues.has(queue.index)) {
      throw this.#error('ERR_INVALID_ARGUMENT', `queue ${queue.index} is set already. Call stopQueue first`);
    }
    const unmapped = queue.areas.find((area) => this.#memory.regionOf(area) === undefined);
    if (unmapped !== undefined) {
      const message = `setting queue ${queue.index} failed: ${unmapped} is not within one mapping`;
      throw this.#error('ERR_NOT_MAPPED', `${message}. Add the target to guest memory with this RAM`, unmapped);
    }
    if (recordsRequests(agreement) && queue.size > RECORDED_QUEUE_SIZE) {
      const message = `setting queue ${queue.index} failed: its size is ${queue.size}, and with "reconnect" at most`;
      throw this.#error('ERR_UNSUPPORTED', `${message} ${RECORDED_QUEUE_SIZE}. Use a smaller queue`);
    }
    this.#queues.set(queue.index, queue);
  }

  /** Removes queues that do not run. */
  remove(queues: Iterable<Queue>): void {
    for (const queue of queues) {
      this.#queues.delete(queue.index);
      queue.release();
    }
    if (this.#queues.size === 0) this.#inflight.release();
  }

  /** All queues. */
  all(): Queue[] {
    return [...this.#queues.values()];
  }

  /**
   * Starts the queues that do not run and whose memory is mapped.
   *
   * @throws {PeerDmaError} as {@link Session.demand}
   */
  async start(session: Session, agreement: Agreement): Promise<void> {
    for (const queue of this.#queues.values()) {
      if (queue.isRunning || queue.areas.some((area) => this.#memory.regionOf(area) === undefined)) continue;
      if (recordsRequests(agreement))
        await this.#inflight.sendTo(session, Math.min(agreement.queueCount ?? 1, MAX_QUEUES));
      queue.base = this.baseOf(queue);
      queue.isInterrupted = false;
      queue.isRunning = true; // from the first message on
      await session.demand(queue.startMessages(agreement.enablesQueues));
      if (queue.hasRun) queue.wake();
      queue.hasRun = true;
    }
  }

  /**
   * Stops the queues that run, or those with an area in a range.
   *
   * @throws {PeerDmaError} as {@link Session.ask}
   */
  async stop(session: Session, range?: AddressRange): Promise<void> {
    for (const queue of this.#queues.values()) {
      if (range === undefined || isIn(queue, range)) await this.stopOne(session, queue);
    }
  }

  /** Stops a queue, if it runs. @throws {PeerDmaError} as {@link Session.ask} */
  async stopOne(session: Session, queue: Queue): Promise<void> {
    if (!queue.isRunning) return;
    const message = { request: 'GET_VRING_BASE', payload: queueState(queue.index, 0) } as const;
    const { payload } = await session.ask(message, SIZES.state);
    queue.isRunning = false;
    queue.base = decodeQueueState(payload).value;
  }

  /** Records that the back end is lost, and with it how far it has processed the queues. */
  interrupt(): void {
    for (const queue of this.#queues.values()) {
      queue.isInterrupted ||= queue.isRunning;
      queue.isRunning = false;
    }
  }

  /**
   * Returns the index of the available ring at which a queue starts the next time. After the loss of a back end, it is
   * the number of used buffers, modulo 2^16: those that were not used are processed again.
   */
  baseOf(queue: Queue): number {
    const [, , used] = queue.areas;
    const region = this.#memory.regionOf(used);
    if (!queue.isInterrupted || region === undefined) return queue.base;
    const bytes = region.file.read(region.offset + (used.start - region.start) + USED_INDEX, 2);
    return new DataView(bytes.buffer, bytes.byteOffset).getUint16(0, true);
  }

  #error(
    code: 'ERR_INVALID_ARGUMENT' | 'ERR_NOT_MAPPED' | 'ERR_UNSUPPORTED',
    message: string,
    range?: AddressRange,
  ): PeerDmaError {
    return new PeerDmaError(code, `${this.#name}: ${message}`, { target: this.#name, range });
  }
}

function isIn({ areas }: Queue, range: AddressRange): boolean {
  return areas.some((area) => area.overlaps(range));
}

function recordsRequests({ protocol }: Agreement): boolean {
  return (protocol & PROTOCOL.INFLIGHT_SHMFD) !== 0n;
}
