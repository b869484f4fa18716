/**
 * Puts guest memory into this process: one reservation of virtual addresses in which every sub-mapping lies at its
 * guest-physical address.
 */
import { NativeReservation } from '#native';
import type { AddressRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { fromNative, native, nativeAsync } from '../native-call.ts';
import { type Store, truncated } from './backing.ts';
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
  /** What is to be seen at its range. */
  readonly #shown = new Set<VaMapping>();
  /** What nobody wants any more, but could not be taken away when it was time. */
  readonly #stale = new Set<VaMapping>();
  /** The reasons given to {@link VaMapper.miss}. */
  readonly #missed = new WeakMap<VaMapping, unknown>();

  /** @throws {PeerDmaError} `ERR_ADDRESS_SPACE_LIMIT` where the process may not reserve 2^addressWidth bytes */
  constructor(addressWidth: number) {
    this.#reservation = native(() => new NativeReservation(addressWidth));
  }

  /** Whether this very memory is to be seen at its range. */
  shows(mapping: VaMapping): boolean {
    return this.#shown.has(mapping);
  }

  /**
   * Shows memory at its range, if it isn't shown there already.
   *
   * @throws {PeerDmaError} `ERR_MEMORY_FAULT` where the file has become shorter since the mapping was made
   */
  show(mapping: VaMapping): void {
    if (this.#shown.has(mapping)) return;
    this.#sweep();
    this.#place(mapping);
    this.#shown.add(mapping);
    this.#missed.delete(mapping);
  }

  /** Discards memory that could not be shown or faulted in; {@link VaMapper.lend} throws `why` from then on. */
  miss(mapping: VaMapping, why: unknown): void {
    this.#missed.set(mapping, why);
    try {
      this.discard(mapping);
    } catch {
      // It stays stale, and is unmapped before other memory is shown.
    }
  }

  /** Takes memory away from its range, if it is shown there. If it throws, the memory is still shown. */
  hide(mapping: VaMapping): void {
    if (!this.#shown.has(mapping)) return;
    this.#take(mapping);
    this.#shown.delete(mapping);
  }

  /**
   * Undoes {@link VaMapper.show}. If it throws, the memory is out of use all the same, and goes as soon as it can: with
   * the next try, or before other memory is shown.
   */
  discard(mapping: VaMapping): void {
    if (this.#shown.delete(mapping)) this.#stale.add(mapping);
    if (!this.#stale.has(mapping)) return;
    this.#take(mapping);
    this.#stale.delete(mapping);
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

  /**
   * Handles on memory, all or none. Each must be given back by {@link VaMapper.release}.
   *
   * @throws {PeerDmaError} `ERR_VA_NOT_MAPPED` where it isn't this memory that is to be seen: other memory is never
   * lent; the reason given to {@link VaMapper.miss}
   */
  lend(mappings: readonly VaMapping[]): HostMemory[] {
    for (const mapping of mappings) {
      if (!this.#shown.has(mapping)) throw this.#missed.get(mapping) ?? notShown(mapping);
    }
    const ranges = mappings.map(({ range }) => range);
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

  #place({ range, store, writable }: VaMapping): void {
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
      const short = error instanceof PeerDmaError && error.code === 'ERR_OUT_OF_RANGE';
      throw short ? truncated(store, range, { cause: error }) : error;
    }
  }

  #take({ range }: VaMapping): void {
    native(() => this.#reservation.unmap(range.start, range.length), { range });
  }

  /** What still can't be taken away is told by whoever wants its place or its pages. */
  #sweep(): void {
    for (const mapping of this.#stale) {
      try {
        this.#take(mapping);
        this.#stale.delete(mapping);
      } catch {
        // lent out, or the system has no room for a change
      }
    }
  }
}

function notShown({ range }: VaMapping): PeerDmaError {
  return new PeerDmaError(
    'ERR_VA_NOT_MAPPED',
    `${range} could not be shown in this process when an earlier change was undone. Repeat a change of the region there`,
    { range },
  );
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
