/**
 * Handles on host memory that a DMA target maps.
 */
import type { NativeReservation } from '#native';
import { newBytes, requireAccess, requireBytes, requireUnsigned } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { native } from '../native-call.ts';

/** What the native core needs to find the memory behind a handle. @internal */
export interface Lease {
  readonly reservation: NativeReservation;
  readonly id: number;
}

/** The lease behind a handle that is still good. @internal */
export let leaseOf: (memory: HostMemory) => Lease;
/** @internal */
export let openHostMemory: (reservation: NativeReservation, id: number, length: bigint) => HostMemory;
/** Marks the handle as ended and says which lease it had. @internal */
export let retireHostMemory: (memory: HostMemory) => number;

/**
 * Host memory lent to a DMA target for as long as it maps it. There is no address to take out of it or to put into it:
 * it names memory by a lease that the native core holds, and while the lease lasts the core lets nobody unmap or
 * replace that memory. The lease ends when the target has unmapped the range.
 */
export class HostMemory {
  readonly #reservation: NativeReservation;
  readonly #id: number;
  #closed = false;
  /** Bytes. */
  readonly length: bigint;

  static {
    leaseOf = (memory) => {
      if (typeof memory !== 'object' || memory === null || !(#id in memory)) {
        throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'host memory is the handle that a DmaMapRequest carries');
      }
      memory.#requireOpen();
      return { reservation: memory.#reservation, id: memory.#id };
    };
    openHostMemory = (reservation, id, length) => new HostMemory(reservation, id, length);
    retireHostMemory = (memory) => {
      memory.#closed = true;
      return memory.#id;
    };
  }

  private constructor(reservation: NativeReservation, id: number, length: bigint) {
    this.#reservation = reservation;
    this.#id = id;
    this.length = length;
  }

  /**
   * Copies bytes out, as the target's DMA would see them.
   *
   * @param offset bytes from the start of this memory
   * @param length bytes
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE`; `ERR_MEMORY_FAULT` where there is no page (a truncated file) or the
   * memory is a real BAR, which is no memory to copy from; `ERR_CLOSED` after the target has unmapped it
   */
  read(offset: bigint, length: number): Uint8Array {
    this.#requireOpen();
    requireAccess(offset, length, this.length, 'the host memory');
    const bytes = newBytes(length, 'host memory');
    native(() => this.#reservation.leaseRead(this.#id, offset, bytes));
    return bytes;
  }

  /**
   * Copies bytes in. Throws as {@link HostMemory.read} does.
   *
   * @param offset bytes from the start of this memory
   */
  write(offset: bigint, bytes: Uint8Array): void {
    this.#requireOpen();
    const from = requireBytes(bytes);
    requireUnsigned(offset, 'an offset');
    native(() => this.#reservation.leaseWrite(this.#id, offset, from));
  }

  #requireOpen(): void {
    if (this.#closed) {
      throw new PeerDmaError('ERR_CLOSED', 'this host memory has been unmapped from the target it was lent to');
    }
  }
}
