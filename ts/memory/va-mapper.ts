/**
 * The host view: maps guest memory into one reservation of virtual addresses of this process. Every sub-mapping lies in
 * it at its guest-physical address.
 */
import { type NativeMemoryFile, NativeReservation } from '#native';
import { AddressRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { fromNative, native, nativeAsync } from '../native-call.ts';
import { nativeWords } from '../native-words.ts';
import { Slices, batchesOf } from '../slices.ts';
import { type MemorySlice, truncated } from './backing.ts';
import { FileNumbers } from './file-numbers.ts';
import { type HostMemory, openHostMemory } from './host-memory.ts';
import { needsWorkerThread } from './worker-thread.ts';

/** From this many on, a worker thread makes the mappings: each takes one or two system calls. */
const WORKER_MAPPINGS = 64;

/** A range of guest memory and the memory that is mapped there. @internal */
export interface VaMapping {
  readonly range: AddressRange;
  readonly memory: MemorySlice;
  readonly writable: boolean;
  /** Whether the host view maps it at its range. Only {@link VaMapper} sets it. */
  isInHostView: boolean;
}

/** Maps memory into the reservation. Host virtual address = base + guest-physical address. @internal */
export class VaMapper {
  readonly #reservation: NativeReservation;
  /** Discarded mappings that could not be unmapped. */
  readonly #stale = new Set<VaMapping>();
  /** The errors passed to {@link VaMapper.recordFailure}, if it was called. */
  #failures: WeakMap<VaMapping, unknown> | undefined;

  /** @throws {PeerDmaError} `ERR_ADDRESS_SPACE_LIMIT` if the process may not reserve 2^addressWidth bytes */
  constructor(addressWidth: number) {
    this.#reservation = native(() => new NativeReservation(addressWidth));
  }

  /**
   * Maps memory at its range, unless it is already mapped there.
   *
   * @throws {PeerDmaError} `ERR_MEMORY_FAULT` when the file has become shorter since the mapping was made
   */
  map(mapping: VaMapping): void {
    if (mapping.isInHostView) return;
    this.sweep();
    this.#place(mapping);
    this.#record(mapping);
  }

  /**
   * Maps memory that is not mapped yet. Files are mapped in one native call, on a worker thread if there are many.
   * Throws as {@link VaMapper.map} does; some of the memory is mapped then.
   */
  async mapAll(mappings: readonly VaMapping[]): Promise<void> {
    const slices = new Slices();
    for (const batch of batchesOf(mappings)) {
      await this.#mapBatch(batch);
      await slices.turn();
    }
  }

  async #mapBatch(mappings: readonly VaMapping[]): Promise<void> {
    const missing = mappings.filter((mapping) => !mapping.isInHostView);
    const ofFiles = missing.filter(({ memory }) => memory.file !== undefined);
    for (const mapping of missing) if (mapping.memory.file === undefined) this.map(mapping);
    if (ofFiles.length === 0) return;
    this.sweep();
    const { files, words } = filePartsOf(ofFiles);
    const failure =
      ofFiles.length < WORKER_MAPPINGS
        ? native(() => this.#reservation.mapFiles(files, words))
        : await nativeAsync(() => this.#reservation.mapFilesAsync(files, words));
    for (const mapping of failure === null ? ofFiles : ofFiles.slice(0, failure.index)) this.#record(mapping);
    if (failure !== null) throw mapFileError(ofFiles[failure.index] as VaMapping, failure.error);
  }

  /** Discards memory that could not be mapped or faulted in. Then {@link VaMapper.lease} throws `error`. */
  recordFailure(mapping: VaMapping, error: unknown): void {
    (this.#failures ??= new WeakMap()).set(mapping, error);
    try {
      this.discard(mapping);
    } catch {
      // It stays stale, and is unmapped before other memory is mapped.
    }
  }

  /**
   * Unmaps memory that is mapped at its range, all of it in one call. If it throws, the memory is still mapped.
   *
   * @param run at least one; their ranges adjoin, in this order
   */
  unmap(run: readonly VaMapping[]): void {
    const [first, last] = [run[0] as VaMapping, run.at(-1) as VaMapping];
    this.#unmapRange({ range: AddressRange.between(first.range.start, last.range.end) });
    for (const mapping of run) mapping.isInHostView = false;
  }

  /**
   * Undoes {@link VaMapper.map}. If it throws, the mapping is stale: the next call of `discard` for it, or of a method
   * that maps memory, retries the unmap.
   */
  discard(mapping: VaMapping): void {
    if (mapping.isInHostView) this.#stale.add(mapping);
    mapping.isInHostView = false;
    if (!this.#stale.has(mapping)) return;
    this.#unmapRange(mapping);
    this.#stale.delete(mapping);
  }

  /**
   * Faults in every page of these ranges.
   *
   * @throws {PeerDmaError} `ERR_VA_NOT_MAPPED` naming the first gap, `ERR_MEMORY_FAULT` past the end of a file
   */
  ensureMapped(ranges: readonly AddressRange[]): void | Promise<void> {
    const pairs = pairsOf(ranges);
    if (!needsWorkerThread(ranges, ({ length }) => length)) {
      return native(() => this.#reservation.ensureMapped(pairs));
    }
    return nativeAsync(() => this.#reservation.ensureMappedAsync(pairs));
  }

  /** For targets that map memory by its range in the reservation, after {@link VaMapper.requireMapped}. */
  get reservation(): NativeReservation {
    return this.#reservation;
  }

  /**
   * @throws {PeerDmaError} `ERR_VA_NOT_MAPPED` when the memory is not mapped at its range; the error passed to
   * {@link VaMapper.recordFailure}
   */
  requireMapped(mapping: VaMapping): void {
    if (!mapping.isInHostView) throw this.#failures?.get(mapping) ?? notMapped(mapping);
  }

  /**
   * Leases all of this memory or none. {@link releaseHostMemory} releases a lease. Throws as
   * {@link VaMapper.requireMapped} does.
   */
  lease(mappings: readonly VaMapping[]): HostMemory[] {
    for (const mapping of mappings) this.requireMapped(mapping);
    const ranges = mappings.map(({ range }) => range);
    const first = native(() => this.#reservation.lease(pairsOf(ranges)));
    return ranges.map((range, index) => openHostMemory(this.#reservation, first + index, range));
  }

  /** @throws {PeerDmaError} `ERR_VA_IN_USE` while memory is leased */
  async close(): Promise<void> {
    await nativeAsync(() => this.#reservation.closeAsync());
    native(() => this.#reservation.close()); // releases the addresses
  }

  #record(mapping: VaMapping): void {
    mapping.isInHostView = true;
    this.#failures?.delete(mapping);
  }

  #place(mapping: VaMapping): void {
    const { range, memory, writable } = mapping;
    const { start, length } = range;
    if (memory.file === undefined) {
      // Always writable here, so that the VMM can write what its devices may only read.
      native(() => this.#reservation.mapPrivate(start, length, memory.private.handle, memory.offset), { range });
      return;
    }
    const { file, offset, transparentHugePages } = memory;
    try {
      this.#reservation.mapFile(start, length, file.handle, offset, writable, transparentHugePages);
    } catch (thrown) {
      throw mapFileError(mapping, thrown);
    }
  }

  #unmapRange({ range }: Pick<VaMapping, 'range'>): void {
    native(() => this.#reservation.unmap(range.start, range.length), { range });
  }

  /** Retries stale unmaps; those that fail stay stale. A later map of the range reports the failure. */
  sweep(): void {
    for (const mapping of this.#stale) {
      try {
        this.#unmapRange(mapping);
        this.#stale.delete(mapping);
      } catch {
        // It is leased, or the process has reached its limit of mappings.
      }
    }
  }
}

/** Converts an error of mapping a file into this process. */
function mapFileError({ range, memory }: VaMapping, thrown: unknown): unknown {
  const error = fromNative(thrown, { range });
  // It was long enough when the mapping was made.
  const short = error instanceof PeerDmaError && error.code === 'ERR_OUT_OF_RANGE';
  return short ? truncated(memory, range, { cause: error }) : error;
}

const WRITABLE = 1n;
const TRANSPARENT_HUGE = 2n;

/** Encodes mappings of files for the native core: offset, length, flags, and offset in the file. */
function filePartsOf(mappings: readonly VaMapping[]): { files: NativeMemoryFile[]; words: BigUint64Array } {
  const numbers = new FileNumbers();
  const words = nativeWords(mappings.length * 4);
  let at = 0;
  for (const { range, memory, writable } of mappings) {
    if (memory.file === undefined) continue;
    const flags = (writable ? WRITABLE : 0n) | (memory.transparentHugePages ? TRANSPARENT_HUGE : 0n);
    words[at++] = range.start;
    words[at++] = range.length;
    words[at++] = numbers.flagsOf(memory.file) | flags;
    words[at++] = memory.offset;
  }
  return { files: numbers.files, words };
}

function notMapped({ range }: VaMapping): PeerDmaError {
  return new PeerDmaError(
    'ERR_VA_NOT_MAPPED',
    `${range} was not mapped again in this process when a change was rolled back. Repeat a change of the region`,
    { range },
  );
}

/** Encodes ranges for the native core: offset and length of each. */
function pairsOf(ranges: readonly AddressRange[]): BigUint64Array {
  const pairs = nativeWords(ranges.length * 2);
  let at = 0;
  for (const range of ranges) {
    pairs[at++] = range.start;
    pairs[at++] = range.length;
  }
  return pairs;
}
