/**
 * The memory behind a mapping: part of a file, or memory private to this process.
 */
import { readOptions } from '../arguments.ts';
import { PeerDmaError, asError } from '../errors.ts';
import { requireBigint } from '../number-types.ts';
import { fromNative, native, nativeAsync } from '../native-call.ts';
import { nativeWords } from '../native-words.ts';
import { type AddressRange, hex } from '../address-range.ts';
import type { SharedFile } from './shared-file.ts';
import { type MemoryFile, fileMemoryOf, requestFileOf } from './memory-file.ts';
import { hostPageSize } from './page-size.ts';
import { PrivateMemory } from './private-memory.ts';
import { valueText } from '../value-text.ts';

/**
 * The memory behind a mapping. It is `length` bytes of a file from `offset` on, or fresh anonymous memory of this
 * process.
 */
export type Backing =
  | {
      /** The caller may close the file once it is mapped. */
      readonly file: MemoryFile;
      /** Bytes from the start of the file; a multiple of its page size. */
      readonly offset: bigint;
    }
  | 'private';

/** Memory to map, from an offset on: of a file, or private to this process. @internal */
export type MemorySlice = FileSlice | PrivateSlice;
interface FileSlice {
  readonly file: SharedFile;
  readonly private?: undefined;
  readonly offset: bigint;
  readonly transparentHugePages: boolean;
  /**
   * Whether a mapping has to fault its pages in before the kernel maps the file. The kernel alone allocates pages of
   * the default size (Linux `memfd_pin_folios`).
   */
  readonly faultInFirst: boolean;
  readonly owner: MemoryOwner;
}
interface PrivateSlice {
  readonly file?: undefined;
  readonly private: PrivateMemory;
  readonly offset: bigint;
  readonly owner: MemoryOwner;
}

/** Keeps the memory of one mapping as long as a piece of the mapping remains. @internal */
export class MemoryOwner {
  readonly #release: () => void;
  #pieces = 0;

  constructor(release: () => void) {
    this.#release = release;
  }

  /** Counts added or removed pieces. Releases the memory when no piece remains. */
  count(change: number): void {
    this.#pieces += change;
    if (this.#pieces === 0) this.#release();
  }
}

/** Options of a backing that are not part of {@link Backing}. @internal */
export interface BackingOptions {
  readonly transparentHugePages?: boolean;
  readonly numaNode?: number;
}

/**
 * Checks a caller's backing for a mapping of `length` bytes and opens it.
 *
 * The memory stays open until its owner has counted the last piece as removed. If no piece was added, call
 * `owner.count(0)`.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_CLOSED`
 * @internal
 */
export function openBacking(backing: Backing, length: bigint, options: BackingOptions = {}): MemorySlice {
  const transparentHugePages = options.transparentHugePages ?? false;
  if (backing === 'private') {
    const memory = new PrivateMemory(length, transparentHugePages);
    const node = options.numaNode;
    try {
      if (node !== undefined) native(() => memory.handle.bindToNode(node));
    } catch (error) {
      memory.close();
      throw error;
    }
    return { private: memory, offset: 0n, owner: new MemoryOwner(() => memory.close()) };
  }
  const { file, offset } = readFileBacking(backing);
  const memory = fileMemoryOf(file);
  if (offset % file.pageSize !== 0n || length % file.pageSize !== 0n) {
    throw new PeerDmaError(
      'ERR_UNALIGNED',
      `${hex(length)} bytes at ${hex(offset)} of ${file.name} are not whole pages of its ${file.pageSize} bytes`,
    );
  }
  if (offset + length > file.length) {
    throw new PeerDmaError(
      'ERR_OUT_OF_RANGE',
      `${hex(length)} bytes at ${hex(offset)} pass the end of ${file.name}, which has ${hex(file.length)}`,
    );
  }
  const node = options.numaNode;
  if (node !== undefined) native(() => memory.handle.bindToNode(node));
  const faultInFirst = transparentHugePages || file.pageSize > hostPageSize();
  const owner = new MemoryOwner(memory.retain());
  return { file: memory, offset, transparentHugePages, faultInFirst, owner };
}

type FileBacking = Exclude<Backing, 'private'>;

/** A copy of a backing that a caller passed. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function readBacking(backing: Backing): Backing {
  return backing === 'private' ? backing : readFileBacking(backing);
}

function readFileBacking(backing: FileBacking): FileBacking {
  if (typeof backing !== 'object' || backing === null) fileMemoryOf(backing); // throws
  const { file, offset } = readOptions(backing, ['file', 'offset'], 'a backing');
  fileMemoryOf(file); // rejects other objects
  requireBigint(offset, 'offset');
  if (offset >= 0n) return { file, offset };
  throw new PeerDmaError(
    'ERR_INVALID_ARGUMENT',
    `the "offset" in ${file.name} is a non-negative bigint, not ${valueText(offset)}`,
  );
}

/** Returns the same memory, `by` bytes further on. @internal */
export function advance(slice: MemorySlice, by: bigint): MemorySlice {
  return by === 0n ? slice : { ...slice, offset: slice.offset + by };
}

/** Whether both are the same memory at the same offset. @internal */
export function isSameMemory(a: MemorySlice, b: MemorySlice): boolean {
  return a.file === b.file && a.private === b.private && a.offset === b.offset;
}

/** Whether two sub-mappings share a page of private memory. @internal */
export function sharePrivateMemory(a: PlacedMemory, b: PlacedMemory): boolean {
  if (a.memory.private === undefined || a.memory.private !== b.memory.private) return false;
  return a.memory.offset < b.memory.offset + b.range.length && b.memory.offset < a.memory.offset + a.range.length;
}

interface PlacedMemory {
  readonly range: { readonly length: bigint };
  readonly memory: MemorySlice;
}

/** The backing that requests to targets carry. @internal */
export function requestBackingOf(slice: MemorySlice): Backing {
  return slice.file === undefined ? 'private' : { file: requestFileOf(slice.file), offset: slice.offset };
}

/** Whether it is the memory of a device. @internal */
export function isDevice({ file }: MemorySlice): boolean {
  return file?.device !== undefined;
}

/** Whether the pages are huge ones of a pool, which may be empty when they are needed. @internal */
export function hasReservedPages({ file }: MemorySlice): boolean {
  return file !== undefined && native(() => file.handle.pageSize()) > hostPageSize();
}

/** Whether the memory is accessible now: its file is long enough, its device decodes memory. @internal */
export function isPresent({ file, offset }: MemorySlice, length: bigint): boolean {
  if (file?.device !== undefined) return file.device.accessible;
  return file === undefined || file.reaches(offset + length);
}

/** The error for a file that was truncated after it was mapped. @internal */
export function truncated(
  { file, offset }: MemorySlice,
  range: AddressRange,
  details: { readonly target?: string; readonly cause?: unknown },
): PeerDmaError {
  return new PeerDmaError(
    'ERR_MEMORY_FAULT',
    `${file?.name} has been truncated: the ${hex(range.length)} bytes at ${hex(offset)} behind ${range} are missing`,
    { range, ...details },
  );
}

/**
 * Faults in parts of memory that are not mapped in the host view.
 *
 * @param parts offsets in the slice
 * @throws {PeerDmaError} `ERR_MEMORY_FAULT`, `ERR_HUGE_PAGES_UNAVAILABLE`
 * @internal
 */
export async function faultInMemory(slice: MemorySlice, parts: readonly AddressRange[]): Promise<void> {
  for (const { start, length } of parts) {
    const offset = slice.offset + start;
    if (slice.file === undefined) await slice.private.faultIn(offset, length);
    else await slice.file.faultIn(offset, length, slice.transparentHugePages);
  }
}

/** A part of memory that keeps its bytes, and the reason. @internal */
export interface UndiscardedPart {
  /** Offsets in the slice. */
  readonly part: AddressRange;
  readonly error: Error;
}

/**
 * Discards the bytes of parts of memory that are not mapped: they read as zeros.
 *
 * @param parts offsets in the slice
 * @returns those for which it failed
 * @internal
 */
export async function discardMemory(slice: MemorySlice, parts: readonly AddressRange[]): Promise<UndiscardedPart[]> {
  const words = nativeWords(parts.length * 2);
  for (const [index, { start, length }] of parts.entries()) {
    words[2 * index] = slice.offset + start;
    words[2 * index + 1] = length;
  }
  const { handle } = slice.file ?? slice.private;
  try {
    const failures = await nativeAsync(() => handle.discard(words));
    return failures.map(({ index, error }) => ({
      part: parts[index] as AddressRange,
      error: asError(fromNative(error)),
    }));
  } catch (thrown) {
    return parts.map((part) => ({ part, error: asError(thrown) }));
  }
}

/** Copies bytes out of memory. @param at offset in the slice, in bytes @internal */
export function readMemory(slice: MemorySlice, at: bigint, into: Uint8Array): void {
  (slice.file ?? slice.private).read(slice.offset + at, into);
}

/** Copies bytes into memory. @param at offset in the slice, in bytes @internal */
export function writeMemory(slice: MemorySlice, at: bigint, bytes: Uint8Array): void {
  (slice.file ?? slice.private).write(slice.offset + at, bytes);
}
