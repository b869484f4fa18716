/**
 * One virtqueue: its options, and the messages that start and stop it.
 */
import { AddressRange } from '../address-range.ts';
import { readOptions, requireUnsigned } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { type EventFd, type HeldEvent, holdEvent } from '../event-fd.ts';
import { requireNumber } from '../number-types.ts';
import { valueText } from '../value-text.ts';
import type { Message } from './message.ts';
import { type RingAddresses, queueState, ringAddresses, u64 } from './payloads.ts';
import { NO_DESCRIPTOR } from './requests.ts';

/**
 * A virtqueue with a split ring, as its driver has set it up.
 *
 * Addresses are guest-physical. Each area lies within one mapping.
 */
export interface VhostUserQueue {
  /** Number of descriptors: a power of two, 1 to 32,768. */
  readonly size: number;
  /** Address of the descriptor table; a multiple of 16. */
  readonly descriptorTable: bigint;
  /** Address of the available ring; a multiple of 2. */
  readonly availableRing: bigint;
  /** Address of the used ring; a multiple of 4. */
  readonly usedRing: bigint;
  /** Index of the available ring at which the back end starts, 0 to 65,535. Default: 0 */
  readonly base?: number;
  /** The driver signals it when buffers are available, for example by a doorbell of a virtual machine. */
  readonly kick: EventFd;
  /** The back end signals it when buffers are used. Default: none, and the driver polls the used ring */
  readonly call?: EventFd;
  /** The back end signals it when it finds the ring invalid. Default: none */
  readonly error?: EventFd;
}

const NAMES = ['size', 'descriptorTable', 'availableRing', 'usedRing', 'base', 'kick', 'call', 'error'] as const;
const MAX_SIZE = 32_768;
const MAX_BASE = 65_535;

/** @internal */
export class Queue {
  readonly index: number;
  readonly size: number;
  readonly addresses: RingAddresses;
  /** The memory of its three areas. */
  readonly areas: readonly [AddressRange, AddressRange, AddressRange];
  /** Index of the available ring at which it starts the next time. */
  base: number;
  /** Whether the back end processes it. */
  isRunning = false;
  /** Whether it ran when its back end was lost. */
  isInterrupted = false;
  /** Whether a back end has processed it before. */
  hasRun = false;
  readonly #kick: HeldEvent;
  readonly #call: HeldEvent | undefined;
  readonly #error: HeldEvent | undefined;
  #isReleased = false;

  /** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_UNALIGNED`, `ERR_CLOSED` */
  constructor(index: number, options: VhostUserQueue) {
    const { size, descriptorTable, availableRing, usedRing, base = 0, kick, call, error } = readOptions(options, NAMES);
    requireWithin(size, 'size', 1, MAX_SIZE);
    if ((size & (size - 1)) !== 0) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the size of a queue is a power of two, not ${size}`);
    }
    requireWithin(base, 'base', 0, MAX_BASE);
    requireAligned(descriptorTable, 'descriptorTable', 16n);
    requireAligned(availableRing, 'availableRing', 2n);
    requireAligned(usedRing, 'usedRing', 4n);
    this.index = index;
    this.size = size;
    this.base = base;
    this.addresses = { descriptorTable, availableRing, usedRing };
    const count = BigInt(size);
    // Virtio 1.3, 2.7.
    this.areas = [
      AddressRange.of(descriptorTable, 16n * count),
      AddressRange.of(availableRing, 6n + 2n * count),
      AddressRange.of(usedRing, 6n + 8n * count),
    ];
    const held: HeldEvent[] = [];
    const hold = (event: EventFd): HeldEvent => {
      const one = holdEvent(event);
      held.push(one);
      return one;
    };
    try {
      this.#kick = hold(kick);
      this.#call = call === undefined ? undefined : hold(call);
      this.#error = error === undefined ? undefined : hold(error);
    } catch (thrown) {
      for (const one of held) one.release();
      throw thrown;
    }
  }

  /** The messages that start it. @param isEnabledByMessage whether the back end starts it disabled */
  startMessages(isEnabledByMessage: boolean): Message[] {
    const messages: Message[] = [
      { request: 'SET_VRING_NUM', payload: queueState(this.index, this.size) },
      { request: 'SET_VRING_BASE', payload: queueState(this.index, this.base) },
      { request: 'SET_VRING_ADDR', payload: ringAddresses(this.index, this.addresses) },
      this.#eventMessage('SET_VRING_CALL', this.#call),
      this.#eventMessage('SET_VRING_KICK', this.#kick),
    ];
    if (this.#error !== undefined) messages.unshift(this.#eventMessage('SET_VRING_ERR', this.#error));
    if (isEnabledByMessage) messages.push({ request: 'SET_VRING_ENABLE', payload: queueState(this.index, 1) });
    return messages;
  }

  /** Signals both sides after a restart: a signal may have been lost with the stop, or with the back end. */
  wake(): void {
    this.#kick.signal();
    this.#call?.signal();
  }

  /** Releases its events. Idempotent. */
  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    for (const event of [this.#kick, this.#call, this.#error]) event?.release();
  }

  #eventMessage(request: 'SET_VRING_KICK' | 'SET_VRING_CALL' | 'SET_VRING_ERR', event: HeldEvent | undefined): Message {
    const index = BigInt(this.index);
    return event === undefined
      ? { request, payload: u64(index | NO_DESCRIPTOR) }
      : { request, payload: u64(index), descriptors: [event.fd] };
  }
}

function requireWithin(value: number, name: string, first: number, last: number): void {
  requireNumber(value, name);
  if (Number.isInteger(value) && value >= first && value <= last) return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"${name}" is ${first} to ${last}, not ${valueText(value)}`);
}

function requireAligned(value: bigint, name: string, alignment: bigint): void {
  requireUnsigned(value, name);
  if (value % alignment === 0n) return;
  throw new PeerDmaError('ERR_UNALIGNED', `"${name}" is a multiple of ${alignment}, not ${valueText(value)}`);
}
