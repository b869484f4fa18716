/** One interrupt vector of an assigned device, with its eventfds and its pending state. */
import { PeerDmaError } from '../../errors.ts';
import { EventFd } from '../../event-fd.ts';
import type { InterruptKind } from '../physical-function.ts';
import type { InterruptMessage } from './msix-table.ts';

/** The owner of vectors: computes their guest-visible state and connects them. @internal */
export interface VectorOwner {
  message(vector: InterruptVector): InterruptMessage | undefined;
  enabled(vector: InterruptVector): boolean;
  /** Called when the vector is used for the first time, and again if it threw. */
  onFirstUse(vector: InterruptVector): void;
}

/** One interrupt vector. {@link AssignedInterrupts.vector} returns the same object each time. */
export class InterruptVector {
  /** The kind of interrupt. */
  readonly kind: InterruptKind;
  /** Its number within its kind, from 0. */
  readonly index: number;
  readonly #owner: VectorOwner;
  /** The VMM's eventfd. Created on first use. */
  #event: EventFd | undefined;
  /** Counts the interrupts while the guest masks a vector that was unmasked before. Created on first use. */
  #maskedEvent: EventFd | undefined;
  /** The number of pending interrupts that were read from the eventfds. */
  #pendingCount = 0n;
  #used = false;
  #closed = false;

  /** @internal */
  constructor(owner: VectorOwner, kind: InterruptKind, index: number) {
    this.#owner = owner;
    this.kind = kind;
    this.index = index;
  }

  /**
   * The message that the guest has programmed, whether or not the vector is masked.
   *
   * For MSI, `data` includes the vector's number. `undefined` for the pin, errors and requests, and for MSI vectors
   * that the guest has not enabled.
   */
  get message(): InterruptMessage | undefined {
    return this.#owner.message(this);
  }

  /** Whether the device's interrupt reaches the guest: the kind is enabled and the vector not masked. */
  get enabled(): boolean {
    return this.#owner.enabled(this);
  }

  /**
   * The eventfd that counts its interrupts, for a hypervisor's irqfd.
   *
   * It is the same one, and open, until the device is closed. Unread counts remain in it.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_SETUP` if the kernel cannot connect it; `ERR_CLOSED`
   */
  get fd(): number {
    this.#use();
    return this.event.fd;
  }

  /**
   * Sets the callback for interrupts. It receives the count since the last call.
   *
   * Do not use it together with a hypervisor that reads `fd`: each count has one reader.
   *
   * @param callback replaces the previous one; `undefined` (also allowed after closing) removes it, and later counts
   * remain in the eventfd
   * @throws {PeerDmaError} as {@link InterruptVector.fd}
   */
  onInterrupt(callback: ((count: bigint) => void) | undefined): void {
    if (callback === undefined) {
      if (!this.#closed) this.#event?.onSignal(undefined);
      return;
    }
    this.#use();
    this.event.onSignal(callback);
  }

  /** Whether the VMM has used the vector. @internal */
  get isUsed(): boolean {
    return this.#used;
  }

  /** @internal */
  get event(): EventFd {
    this.#event ??= this.#make();
    return this.#event;
  }

  /** @internal */
  get maskedEvent(): EventFd {
    this.#maskedEvent ??= this.#make();
    return this.#maskedEvent;
  }

  /** Whether it interrupted while it was masked, and this is not delivered yet. @internal */
  get isPending(): boolean {
    if (this.#maskedEvent !== undefined && !this.#closed) this.#pendingCount += this.#maskedEvent.take();
    return this.#pendingCount > 0n;
  }

  /**
   * Delivers the pending interrupts as one message (PCI Local Bus 3.0, 6.8.3.4).
   *
   * @internal
   */
  deliverPending(): void {
    if (!this.isPending) return;
    this.#pendingCount = 0n;
    try {
      this.event.signal();
    } catch (error) {
      // The count is at its maximum of 2^64 - 2 unread signals: another one adds no information.
      if (!(error instanceof PeerDmaError && error.code === 'ERR_OUT_OF_RANGE')) throw error;
    }
  }

  /** Makes unread interrupts pending, when the vector is masked. @internal */
  makePending(): void {
    if (this.#event !== undefined && !this.#closed) this.#pendingCount += this.#event.take();
  }

  /** Adds a message that was pending in the device. @internal */
  addPending(): void {
    this.#pendingCount += 1n;
  }

  /** Discards the pending interrupts. @internal */
  clearPending(): void {
    if (this.isPending) this.#pendingCount = 0n;
  }

  /** Discards all interrupts that the guest has not received. @internal */
  clear(): void {
    this.makePending();
    this.clearPending();
  }

  /** Whether that eventfd was created. @internal */
  hasEvent(eventKind: 'event' | 'masked'): boolean {
    return (eventKind === 'event' ? this.#event : this.#maskedEvent) !== undefined;
  }

  /** Closes an eventfd created for a failed connection. Its count becomes pending. @internal */
  closeEvent(eventKind: 'event' | 'masked'): void {
    if (eventKind === 'event') {
      this.makePending();
      this.#event?.close();
      this.#event = undefined;
    } else {
      this.#pendingCount += this.#maskedEvent?.take() ?? 0n;
      this.#maskedEvent?.close();
      this.#maskedEvent = undefined;
    }
  }

  /** @internal */
  close(): void {
    this.#closed = true;
    this.#pendingCount = 0n;
    this.#event?.close();
    this.#maskedEvent?.close();
  }

  #use(): void {
    if (this.#used) return;
    this.#used = true;
    try {
      this.#owner.onFirstUse(this);
    } catch (error) {
      this.#used = false;
      throw error;
    }
  }

  #make(): EventFd {
    const made = EventFd.create();
    if (this.#closed) made.close(); // later uses throw ERR_CLOSED
    return made;
  }
}
