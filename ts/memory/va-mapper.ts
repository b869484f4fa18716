/**
 * Puts guest memory into this process: one reservation of virtual addresses in which every sub-mapping lies at its
 * guest-physical address.
 */
import { type NativeMemoryFile, NativeReservation } from '#native';
import type { AddressRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { fromNative, native, nativeAsync } from '../native-call.ts';
import { nativeWords } from '../native-words.ts';
import { type Store, truncated } from './backing.ts';
import { type MemoryFile, nativeFileOf } from './memory-file.ts';
import { type HostMemory, openHostMemory } from './host-memory.ts';

/** Clearing and pinning pages takes about a microsecond each. More bytes than this are left to a worker thread. @internal */
export const ON_A_THREAD: bigint = 1n << 20n;

/** From this many on, mappings are made on a worker thread: each is a system call or two. */
const MANY = 64;

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

  /**
   * Maps memory at its range, as far as it isn't mapped there already: files in one call, much of it on a worker
   * thread. Throws as {@link VaMapper.show} does; some of the memory is mapped then.
   */
  async showAll(mappings: readonly VaMapping[]): Promise<void> {
    const missing = mappings.filter((mapping) => !this.#shown.has(mapping));
    const ofFiles = missing.filter(({ store }) => store.file !== undefined);
    for (const mapping of missing) if (mapping.store.file === undefined) this.show(mapping);
    if (ofFiles.length === 0) return;
    this.#sweep();
    const { files, words } = filePartsOf(ofFiles);
    const [failure] =
      ofFiles.length < MANY
        ? native(() => this.#reservation.mapFiles(files, words))
        : await nativeAsync(() => this.#reservation.mapFilesAsync(files, words));
    for (const mapping of ofFiles.slice(0, failure?.index)) {
      this.#shown.add(mapping);
      this.#missed.delete(mapping);
    }
    if (failure !== undefined) throw placeError(ofFiles[failure.index] as VaMapping, new Error(failure.reason));
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
   * The reservation, for targets that map memory by its range in it.
   *
   * @throws {PeerDmaError} `ERR_VA_NOT_MAPPED` when other memory than one of these, or none, is mapped at its range;
   * the reason given to {@link VaMapper.miss}
   */
  reservationWith(mappings: readonly VaMapping[]): NativeReservation {
    for (const mapping of mappings) {
      if (!this.#shown.has(mapping)) throw this.#missed.get(mapping) ?? notShown(mapping);
    }
    return this.#reservation;
  }

  /**
   * Leases memory, all or none. Each lease ends by {@link releaseHostMemory}. Throws as
   * {@link VaMapper.reservationWith} does.
   */
  lend(mappings: readonly VaMapping[]): HostMemory[] {
    this.reservationWith(mappings);
    const ranges = mappings.map(({ range }) => range);
    const first = native(() => this.#reservation.lease(pairsOf(ranges)));
    return ranges.map((range, index) => openHostMemory(this.#reservation, first + index, range));
  }

  /** @throws {PeerDmaError} `ERR_VA_IN_USE` while memory is leased */
  async close(): Promise<void> {
    await nativeAsync(() => this.#reservation.closeAsync());
    native(() => this.#reservation.close()); // gives the addresses back
  }

  #place(mapping: VaMapping): void {
    const { range, store, writable } = mapping;
    const { start, length } = range;
    if (store.file === undefined) {
      // Always writable here, so that the VMM can write what its devices may only read.
      native(() => this.#reservation.mapPrivate(start, length, store.private.handle, store.offset), { range });
      return;
    }
    const { file, offset, transparentHugePages } = store;
    try {
      this.#reservation.mapFile(start, length, nativeFileOf(file), offset, writable, transparentHugePages);
    } catch (thrown) {
      throw placeError(mapping, thrown);
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

/** Why a file could not be mapped in this process. */
function placeError({ range, store }: VaMapping, thrown: unknown): unknown {
  const error = fromNative(thrown, { range });
  // It was long enough when the mapping was made.
  const short = error instanceof PeerDmaError && error.code === 'ERR_OUT_OF_RANGE';
  return short ? truncated(store, range, { cause: error }) : error;
}

const WRITABLE = 1n;
const TRANSPARENT_HUGE = 2n;
/** Flags from this bit on say which file of the call. */
const WHICH_SHIFT = 32n;

/** Mappings of files as the native core takes them: offset, length, flags, and offset in the file. */
function filePartsOf(mappings: readonly VaMapping[]): { files: NativeMemoryFile[]; words: BigUint64Array } {
  const files: NativeMemoryFile[] = [];
  const numbers = new Map<MemoryFile, bigint>();
  const words = nativeWords(mappings.length * 4);
  let at = 0;
  for (const { range, store, writable } of mappings) {
    if (store.file === undefined) continue;
    let number = numbers.get(store.file);
    if (number === undefined) {
      number = BigInt(files.push(nativeFileOf(store.file)) - 1) << WHICH_SHIFT;
      numbers.set(store.file, number);
    }
    words[at++] = range.start;
    words[at++] = range.length;
    words[at++] = number | (writable ? WRITABLE : 0n) | (store.transparentHugePages ? TRANSPARENT_HUGE : 0n);
    words[at++] = store.offset;
  }
  return { files, words };
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
  const pairs = nativeWords(ranges.length * 2);
  let at = 0;
  for (const range of ranges) {
    pairs[at++] = range.start;
    pairs[at++] = range.length;
  }
  return pairs;
}
