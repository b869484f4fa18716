/**
 * One vector of an assigned device, as a VMM gets hold of it.
 */
import { PeerDmaError } from '../../errors.ts';
import { EventFd } from '../event-fd.ts';
import type { InterruptKind } from '../physical-function.ts';
import type { InterruptMessage } from './msix-table.ts';

/** What a vector is asked about, and what it says of itself. @internal */
export interface VectorOwner {
  message(vector: InterruptVector): InterruptMessage | undefined;
  enabled(vector: InterruptVector): boolean;
  /** Somebody wants its interrupts. Called once. If it throws, it is called again the next time. */
  taken(vector: InterruptVector): void;
}

/** A way in which a device interrupts its guest. Got from {@link AssignedInterrupts.vector}; the same object for all time. */
export class InterruptVector {
  /** How it interrupts. */
  readonly kind: InterruptKind;
  /** Within its kind, from 0. */
  readonly index: number;
  readonly #owner: VectorOwner;
  /** What the VMM has. Made on first use. */
  #event: EventFd | undefined;
  /** Where the device's interrupts go while the guest masks a vector that was not masked before. Made on first use. */
  #holding: EventFd | undefined;
  /** How much of what {@link InterruptVector.#holding} counted was looked at. */
  #held = 0n;
  #taken = false;
  #closed = false;

  /** @internal */
  constructor(owner: VectorOwner, kind: InterruptKind, index: number) {
    this.#owner = owner;
    this.kind = kind;
    this.index = index;
  }

  /**
   * What the guest wants written where, as it has programmed it, masked and enabled or not; for MSI `data` has the vector's number in it.
   * `undefined` for the pin, for errors and requests, and for MSI vectors beyond those that the guest asks for.
   */
  get message(): InterruptMessage | undefined {
    return this.#owner.message(this);
  }

  /** Whether an interrupt of the device is one of the guest's now: the kind is on, and the vector not masked. */
  get enabled(): boolean {
    return this.#owner.enabled(this);
  }

  /**
   * The eventfd that counts its interrupts, for a hypervisor's irqfd. It stays open until the device is closed, and is the same
   * whatever the guest does. What it counts while nobody takes it, it keeps.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_SETUP` where the kernel refuses to connect it, `ERR_CLOSED`
   */
  get fd(): number {
    this.#take();
    return this.event.fd;
  }

  /**
   * Calls back when the device interrupts, with how often since the last call. Once a hypervisor has the eventfd, leave it to it: each
   * count is told once.
   *
   * @param callback in place of the one before; `undefined` for none, also after closing: what is counted from then on stays in the
   * eventfd
   * @throws {PeerDmaError} as {@link InterruptVector.fd}
   */
  onInterrupt(callback: ((count: bigint) => void) | undefined): void {
    if (callback === undefined) {
      if (!this.#closed) this.#event?.listen(undefined);
      return;
    }
    this.#take();
    this.event.listen(callback);
  }

  /** Whether somebody wants its interrupts. @internal */
  get isTaken(): boolean {
    return this.#taken;
  }

  /** @internal */
  get event(): EventFd {
    this.#event ??= this.#make();
    return this.#event;
  }

  /** @internal */
  get holding(): EventFd {
    this.#holding ??= this.#make();
    return this.#holding;
  }

  /** Whether it interrupted while it was masked, and the guest does not know yet. @internal */
  get isPending(): boolean {
    if (this.#holding !== undefined && !this.#closed) this.#held += this.#holding.take();
    return this.#held > 0n;
  }

  /**
   * Tells the guest what it does not know yet: one message, however many it would have been (PCI Local Bus 3.0, 6.8.3.4).
   *
   * @internal
   */
  release(): void {
    if (!this.isPending) return;
    this.#held = 0n;
    try {
      this.event.signal();
    } catch (error) {
      // Full: nobody has taken 2^64 - 2 of them, and another one tells no more.
      if (!(error instanceof PeerDmaError && error.code === 'ERR_OUT_OF_RANGE')) throw error;
    }
  }

  /** It is masked now: what it counted and nobody took yet the guest is not to hear of either, and it is pending. @internal */
  hold(): void {
    if (this.#event !== undefined && !this.#closed) this.#held += this.#event.take();
  }

  /** The device had a message for it that the guest does not know of yet. @internal */
  pend(): void {
    this.#held += 1n;
  }

  /** Forgets what waits for being unmasked. @internal */
  forgetPending(): void {
    if (this.isPending) this.#held = 0n;
  }

  /** Forgets all that the guest does not know yet. @internal */
  forget(): void {
    this.hold();
    this.forgetPending();
  }

  /** Whether there is an eventfd for that. @internal */
  has(place: 'event' | 'holding'): boolean {
    return (place === 'event' ? this.#event : this.#holding) !== undefined;
  }

  /** Closes an eventfd that was made for a connection that failed, before anybody could take it. What it counted is pending. @internal */
  discard(place: 'event' | 'holding'): void {
    if (place === 'event') {
      this.hold();
      this.#event?.close();
      this.#event = undefined;
    } else {
      this.#held += this.#holding?.take() ?? 0n;
      this.#holding?.close();
      this.#holding = undefined;
    }
  }

  /** @internal */
  close(): void {
    this.#closed = true;
    this.#held = 0n;
    this.#event?.close();
    this.#holding?.close();
  }

  #take(): void {
    if (this.#taken) return;
    this.#taken = true;
    try {
      this.#owner.taken(this);
    } catch (error) {
      this.#taken = false;
      throw error;
    }
  }

  #make(): EventFd {
    const made = EventFd.create();
    if (this.#closed) made.close(); // so that whoever uses it is told
    return made;
  }
}
