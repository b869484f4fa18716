/**
 * A split virtqueue in guest memory (Virtual I/O Device specification 1.2, 2.7).
 */
import type { GuestMemory } from 'peerdma';

/** The queue that a driver has set up. */
export interface QueueAddresses {
  /** The number of entries. */
  readonly size: number;
  /** Guest-physical address of the descriptor table. */
  readonly descriptors: bigint;
  /** That of the driver area, with the available ring. */
  readonly driver: bigint;
  /** That of the device area, with the used ring. */
  readonly device: bigint;
}

/** Part of a buffer. */
export interface BufferPart {
  readonly address: bigint;
  /** Bytes. */
  readonly length: number;
}

/** A buffer of the driver. */
export interface Buffer {
  /** The index of its first descriptor. */
  readonly head: number;
  /** The parts that the device reads. */
  readonly readable: readonly BufferPart[];
  /** The parts that the device writes. */
  readonly writable: readonly BufferPart[];
}

/** A queue that a driver has set up against the specification. */
export class QueueError extends Error {
  override readonly name = 'QueueError';
}

const DESCRIPTOR = 16n;
/** Flags of a descriptor. */
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
/** Offsets in the available and the used ring. */
const INDEX = 2n;
const RING = 4n;
const USED_ENTRY = 8n;
/** The flag of the available ring without interrupts. */
const NO_INTERRUPT = 1;

/** Takes buffers of the driver, and returns them. */
export class SplitQueue {
  readonly #memory: GuestMemory;
  readonly #addresses: QueueAddresses;
  /** The index of the next available and of the next used entry. */
  #available = 0;
  #used = 0;
  #isEnded = false;

  constructor(memory: GuestMemory, addresses: QueueAddresses) {
    this.#memory = memory;
    this.#addresses = addresses;
  }

  /** Ends the queue, whose memory the driver may reuse: it has no more buffers, and nothing is written. */
  end(): void {
    this.#isEnded = true;
  }

  /**
   * Takes the next buffer, if there is one.
   *
   * @throws {QueueError} for invalid descriptors
   * @throws {PeerDmaError} if an address has no memory
   */
  take(): Buffer | undefined {
    if (this.#isEnded) return undefined;
    const { size, driver } = this.#addresses;
    const ahead = (this.#memory.read16(driver + INDEX) - this.#available) & 0xffff;
    if (ahead === 0) return undefined;
    if (ahead > size) throw new QueueError(`the driver made ${ahead} buffers available in a queue of ${size}`);
    const head = this.#memory.read16(driver + RING + 2n * BigInt(this.#available % size));
    this.#available = (this.#available + 1) & 0xffff;
    return this.#bufferAt(head);
  }

  /**
   * Returns a buffer to the driver.
   *
   * @param written the number of bytes that the device has written
   */
  put({ head }: Buffer, written: number): void {
    if (this.#isEnded) return;
    const { size, device } = this.#addresses;
    const entry = device + RING + USED_ENTRY * BigInt(this.#used % size);
    this.#memory.write32(entry, head);
    this.#memory.write32(entry + 4n, written);
    this.#used = (this.#used + 1) & 0xffff;
    this.#memory.write16(device + INDEX, this.#used);
  }

  /** Whether the driver expects an interrupt for the buffers that it gets back. */
  get expectsInterrupt(): boolean {
    return (this.#memory.read16(this.#addresses.driver) & NO_INTERRUPT) === 0;
  }

  /** Reads the first bytes of the readable parts: `length`, or fewer if they are shorter. */
  read({ readable }: Buffer, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    let at = 0;
    for (const part of readable) {
      const end = Math.min(length, at + part.length);
      this.#memory.readInto(part.address, bytes.subarray(at, end));
      at = end;
    }
    return bytes.subarray(0, at);
  }

  /** Writes bytes to the writable parts. @returns the number of bytes that they have room for */
  write({ writable }: Buffer, bytes: Uint8Array): number {
    let at = 0;
    for (const { address, length } of this.#isEnded ? [] : writable) {
      const end = Math.min(bytes.length, at + length);
      this.#memory.write(address, bytes.subarray(at, end));
      at = end;
    }
    return at;
  }

  #bufferAt(head: number): Buffer {
    const { size, descriptors } = this.#addresses;
    const readable: BufferPart[] = [];
    const writable: BufferPart[] = [];
    let index = head;
    for (let count = 0; count < size; count++) {
      if (index >= size) throw new QueueError(`descriptor ${index} is past the end of a queue of ${size}`);
      const at = descriptors + DESCRIPTOR * BigInt(index);
      const flags = this.#memory.read16(at + 12n);
      if ((flags & INDIRECT) !== 0) throw new QueueError('an indirect descriptor, which was not negotiated');
      const part = { address: this.#memory.read64(at), length: this.#memory.read32(at + 8n) };
      ((flags & WRITE) === 0 ? readable : writable).push(part);
      if ((flags & NEXT) === 0) return { head, readable, writable };
      index = this.#memory.read16(at + 14n);
    }
    throw new QueueError(`the descriptors from ${head} on form a loop`);
  }
}
