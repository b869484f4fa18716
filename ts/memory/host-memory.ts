/**
 * Handles on host memory that a DMA target maps.
 */
import type { NativeReservation } from '#native';
import type { AddressRange } from '../address-range.ts';
import { newBytes, requireAccess, requireBytes, requireUnsigned } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { INSPECT, objectText } from '../object-text.ts';
import { sizeOf } from '../size.ts';
import { native } from '../native-call.ts';

/** Identifies the memory behind a handle for the native core. @internal */
export interface Lease {
  readonly reservation: NativeReservation;
  readonly id: number;
  /** Bytes from the start of the reservation. */
  readonly offset: bigint;
}

/**
 * Returns the lease behind a handle.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`
 * @internal
 */
export let leaseOf: (memory: HostMemory) => Lease;
/** Wraps a lease of the native core. @internal */
export let openHostMemory: (reservation: NativeReservation, id: number, range: AddressRange) => HostMemory;
/** Marks a handle as closed. @returns its lease */
let endHostMemory: (memory: HostMemory) => Lease;

/**
 * Host memory that is leased to a DMA target while the target maps it.
 *
 * The handle neither contains nor accepts an address: it identifies memory by a lease that the native core holds. Until
 * the lease is released, the core rejects every unmap or replacement of that memory. The lease is released when the
 * target has unmapped the range.
 */
export class HostMemory {
  readonly #lease: Lease;
  #closed = false;
  /** Bytes. */
  readonly length: bigint;

  static {
    leaseOf = (memory) => {
      if (typeof memory !== 'object' || memory === null || !(#lease in memory)) {
        throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'host memory is the handle that a DmaMapRequest carries');
      }
      memory.#requireOpen();
      return memory.#lease;
    };
    openHostMemory = (reservation, id, range) => new HostMemory({ reservation, id, offset: range.start }, range.length);
    endHostMemory = (memory) => {
      memory.#closed = true;
      return memory.#lease;
    };
  }

  private constructor(lease: Lease, length: bigint) {
    this.#lease = lease;
    this.length = length;
  }

  /**
   * Copies bytes out: the bytes that the target's DMA reads.
   *
   * @param offset bytes from the start of this memory
   * @param length bytes
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE`; `ERR_MEMORY_FAULT` if a page is missing (a truncated file) or the memory
   * is a real BAR, which cannot be copied; `ERR_CLOSED` after the target has unmapped it
   */
  read(offset: bigint, length: number): Uint8Array {
    this.#requireOpen();
    requireAccess(offset, length, this.length, 'the host memory');
    const bytes = newBytes(length, 'host memory');
    const { reservation, id } = this.#lease;
    native(() => reservation.leaseRead(id, offset, bytes));
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
    requireUnsigned(offset, 'offset');
    const { reservation, id } = this.#lease;
    native(() => reservation.leaseWrite(id, offset, from));
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'HostMemory', () => [`(${sizeOf(this.length)})`, this.#closed ? 'released' : 'leased']);
  }

  #requireOpen(): void {
    if (this.#closed) {
      throw new PeerDmaError('ERR_CLOSED', 'this host memory has been unmapped from the target it was leased to');
    }
  }
}

/** Releases leases. Their handles throw `ERR_CLOSED` from then on. @internal */
export function releaseHostMemory(memories: readonly HostMemory[]): void {
  const leases = memories.map(endHostMemory).sort((a, b) => a.id - b.id);
  // One native call for each run of consecutive leases: a batch that was leased together is released together.
  let count = 0;
  for (const [index, { reservation, id }] of leases.entries()) {
    count++;
    if (leases[index + 1]?.id === id + 1) continue;
    native(() => reservation.releaseLeases(id - count + 1, count));
    count = 0;
  }
}
