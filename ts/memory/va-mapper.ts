/**
 * Puts guest memory into this process: one reservation of virtual addresses in which every sub-mapping lies at its
 * guest-physical address.
 */
import { NativeReservation } from '#native';
import { type AddressRange, hex } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { fromNative, native, nativeAsync } from '../native-call.ts';
import type { Store } from './backing.ts';
import { nativeFileOf } from './memory-file.ts';
import { type HostMemory, openHostMemory, retireHostMemory } from './host-memory.ts';

/** Clearing and pinning pages takes about a microsecond each. More bytes than this are left to a worker thread. @internal */
export const ON_A_THREAD: bigint = 1n << 20n;

/** A stretch of guest memory and what is to be seen there. @internal */
export interface VaMapping {
  readonly range: AddressRange;
  readonly store: Store;
  readonly writable: boolean;
}

/** The reservation's one user. Host virtual address = base + guest-physical address. @internal */
export class VaMapper {
  readonly #reservation: NativeReservation;

  /** @throws {PeerDmaError} `ERR_ADDRESS_SPACE_LIMIT` where the process may not reserve 2^addressWidth bytes */
  constructor(addressWidth: number) {
    this.#reservation = native(() => new NativeReservation(addressWidth));
  }

  /** @throws {PeerDmaError} `ERR_MEMORY_FAULT` where the file has become shorter since the mapping was made */
  map({ range, store, writable }: VaMapping): void {
    const { start, length } = range;
    if (store.file === undefined) {
      // Always writable here, so that the VMM can write what its devices may only read.
      native(() => this.#reservation.mapPrivate(start, length, store.private.handle, store.offset, true), { range });
      return;
    }
    const { file, offset, transparentHugePages } = store;
    try {
      this.#reservation.mapFile(start, length, nativeFileOf(file), offset, writable, transparentHugePages);
    } catch (thrown) {
      const error = fromNative(thrown, { range });
      // It was long enough when the mapping was made.
      if (!(error instanceof PeerDmaError) || error.code !== 'ERR_OUT_OF_RANGE') throw error;
      throw new PeerDmaError(
        'ERR_MEMORY_FAULT',
        `${file.name} has been truncated: ${range} shows ${hex(length)} bytes from ${hex(offset)} on, which it no longer has`,
        { range, cause: error },
      );
    }
  }

  unmap(range: AddressRange): void {
    native(() => this.#reservation.unmap(range.start, range.length), { range });
  }

  /**
   * Faults in every page of these ranges.
   *
   * @throws {PeerDmaError} `ERR_VA_NOT_MAPPED` naming the first gap, `ERR_MEMORY_FAULT` past the end of a file
   */
  ensureMapped(ranges: readonly AddressRange[]): void | Promise<void> {
    const pairs = pairsOf(ranges);
    if (!isMuch(ranges)) return native(() => this.#reservation.ensureMapped(pairs));
    return nativeAsync(() => this.#reservation.ensureMappedAsync(pairs));
  }

  /** Handles on the memory of these ranges, all or none. Each must be given back by {@link VaMapper.release}. */
  lend(ranges: readonly AddressRange[]): HostMemory[] {
    const first = native(() => this.#reservation.lease(pairsOf(ranges)));
    return ranges.map((range, index) => openHostMemory(this.#reservation, first + index, range.length));
  }

  /** Ends leases. The handles are of no use afterwards, whoever still holds them. */
  release(memories: readonly HostMemory[]): void {
    const ids = memories.map((memory) => retireHostMemory(memory)).sort((a, b) => a - b);
    // One crossing for each run of consecutive leases: a batch that was lent together goes back together.
    for (let from = 0; from < ids.length;) {
      const first = ids[from] ?? 0;
      let count = 1;
      while (ids[from + count] === first + count) count++;
      native(() => this.#reservation.releaseLeases(first, count));
      from += count;
    }
  }

  /** @throws {PeerDmaError} `ERR_VA_IN_USE` while memory is lent out */
  close(): void {
    native(() => this.#reservation.close());
  }
}

/** Whether to leave it to a worker thread. */
function isMuch(ranges: readonly AddressRange[]): boolean {
  let bytes = 0n;
  return ranges.some(({ length }) => (bytes += length) > ON_A_THREAD);
}

/** Offset and length of each range, as the native core takes them. */
function pairsOf(ranges: readonly AddressRange[]): BigUint64Array {
  const pairs = new BigUint64Array(ranges.length * 2);
  let at = 0;
  for (const range of ranges) {
    pairs[at++] = range.start;
    pairs[at++] = range.length;
  }
  return pairs;
}
