/**
 * The memory behind a mapping: part of a file, or memory private to this process.
 */
import { readOptions } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { native } from '../native-call.ts';
import { type AddressRange, hex } from '../address-range.ts';
import type { FileMemory } from './file-memory.ts';
import { type MemoryFile, fileMemoryOf, requestFileOf } from './memory-file.ts';
import { hostPageSize } from './page-size.ts';
import { PrivateMemory } from './private-memory.ts';
import { valueText } from '../value-text.ts';

/**
 * The memory behind a mapping: `length` bytes of a file from `offset` on, or fresh anonymous memory of this process.
 */
export type Backing =
  | {
      /** The caller may close the file once it is mapped. */
      readonly file: MemoryFile;
      /** Bytes from the start of the file; a multiple of its page size. */
      readonly offset: bigint;
    }
  | 'private';

/** A backing that is ready to be mapped: the memory of `'private'` is allocated. @internal */
export type Store = StoreFile | StorePrivate;
interface StoreFile {
  readonly file: FileMemory;
  readonly private?: undefined;
  readonly offset: bigint;
  readonly transparentHugePages: boolean;
  /**
   * Whether a mapping has to fault its pages in before the kernel maps the file. The kernel alone allocates pages of
   * the default size (Linux `memfd_pin_folios`).
   */
  readonly faultInFirst: boolean;
  readonly owner: StoreOwner;
}
interface StorePrivate {
  readonly file?: undefined;
  readonly private: PrivateMemory;
  readonly offset: bigint;
  readonly owner: StoreOwner;
}

/** Keeps the memory of one mapping as long as a piece of the mapping remains. @internal */
export class StoreOwner {
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
export interface StoreOptions {
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
export function openStore(backing: Backing, length: bigint, options: StoreOptions = {}): Store {
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
    return { private: memory, offset: 0n, owner: new StoreOwner(() => memory.close()) };
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
  const owner = new StoreOwner(memory.retain());
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
  if (typeof offset === 'bigint' && offset >= 0n) return { file, offset };
  throw new PeerDmaError(
    'ERR_INVALID_ARGUMENT',
    `the offset in ${file.name} is a non-negative bigint, not ${valueText(offset)}`,
  );
}

/** Returns the same memory, `by` bytes further on. @internal */
export function advance(store: Store, by: bigint): Store {
  return by === 0n ? store : { ...store, offset: store.offset + by };
}

/** Whether both stores are the same memory at the same offset. @internal */
export function sameStore(a: Store, b: Store): boolean {
  return a.file === b.file && a.private === b.private && a.offset === b.offset;
}

/** Whether two sub-mappings share a page of private memory. @internal */
export function sharePrivateMemory(a: StoreRange, b: StoreRange): boolean {
  if (a.store.private === undefined || a.store.private !== b.store.private) return false;
  return a.store.offset < b.store.offset + b.range.length && b.store.offset < a.store.offset + a.range.length;
}

interface StoreRange {
  readonly range: { readonly length: bigint };
  readonly store: Store;
}

/** The backing that requests to targets carry for a store. @internal */
export function requestBackingOf(store: Store): Backing {
  return store.file === undefined ? 'private' : { file: requestFileOf(store.file), offset: store.offset };
}

/** Whether the store is the memory of a device. @internal */
export function isDevice({ file }: Store): boolean {
  return file?.device !== undefined;
}

/** Whether the memory of a store is accessible now: its file is long enough, its device decodes memory. @internal */
export function isPresent({ file, offset }: Store, length: bigint): boolean {
  if (file?.device !== undefined) return file.device.accessible;
  return file === undefined || file.reaches(offset + length);
}

/** The error for a file that was truncated after it was mapped. @internal */
export function truncated(
  { file, offset }: Store,
  range: AddressRange,
  details: { readonly target?: string; readonly cause?: unknown },
): PeerDmaError {
  return new PeerDmaError(
    'ERR_MEMORY_FAULT',
    `${file?.name} has been truncated: the ${hex(range.length)} bytes at ${hex(offset)} behind ${range} are missing`,
    { range, ...details },
  );
}

/** Copies bytes out of a store. @param at offset in the store, in bytes @internal */
export function readStore(store: Store, at: bigint, into: Uint8Array): void {
  (store.file ?? store.private).read(store.offset + at, into);
}

/** Copies bytes into a store. @param at offset in the store, in bytes @internal */
export function writeStore(store: Store, at: bigint, bytes: Uint8Array): void {
  (store.file ?? store.private).write(store.offset + at, bytes);
}
