/**
 * What memory a mapping shows: a stretch of a file, or memory private to this process.
 */
import { readOptions } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { native, nativeAsync } from '../native-call.ts';
import { type AddressRange, hex } from '../address-range.ts';
import { deviceStateOf } from './device-state.ts';
import { type MemoryFile, nativeFileOf, originalOf, requestFileOf, retainFile } from './memory-file.ts';
import { hostPageSize } from './page-size.ts';
import { PrivateMemory } from './private-memory.ts';
import { valueText } from '../value-text.ts';

/** The memory behind a mapping: `length` bytes of a file from `offset` on, or fresh anonymous memory of this process. */
export type Backing =
  | {
      /** Has the memory. It may be closed once it is mapped. */
      readonly file: MemoryFile;
      /** Bytes from the start of the file; whole pages of it. */
      readonly offset: bigint;
    }
  | 'private';

/** A backing that is ready to be mapped: `'private'` has got its memory. @internal */
export type Store = StoreFile | StorePrivate;
interface StoreFile {
  readonly file: MemoryFile;
  readonly private?: undefined;
  readonly offset: bigint;
  readonly transparentHugePages: boolean;
  /**
   * Whether its pages have to be faulted in by a mapping before the kernel maps the file by itself, which does not heed of what kind they
   * are to be (Linux `memfd_pin_folios`).
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

/** Keeps the memory of one mapping for as long as a piece of the mapping is left. @internal */
export class StoreOwner {
  readonly #release: () => void;
  #pieces = 0;

  constructor(release: () => void) {
    this.#release = release;
  }

  /** Counts pieces that have come, or gone; with the last one the memory goes. */
  count(change: number): void {
    this.#pieces += change;
    if (this.#pieces === 0) this.#release();
  }
}

/** How memory is to be backed; what {@link Backing} leaves open. @internal */
export interface StoreOptions {
  readonly transparentHugePages?: boolean;
  readonly numaNode?: number;
}

/**
 * Checks a caller's backing for a mapping of `length` bytes and makes it ready.
 *
 * What it opens is kept until its owner has counted the last piece out: `owner.count(0)` where none came in.
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
  const handle = nativeFileOf(file);
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
  if (node !== undefined) native(() => handle.bindToNode(node));
  const faultInFirst = transparentHugePages || file.pageSize > hostPageSize();
  const owner = new StoreOwner(retainFile(file));
  return { file: originalOf(file), offset, transparentHugePages, faultInFirst, owner };
}

type FileBacking = Exclude<Backing, 'private'>;

/** A copy of a backing that a caller passed. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function readBacking(backing: Backing): Backing {
  return backing === 'private' ? backing : readFileBacking(backing);
}

function readFileBacking(backing: FileBacking): FileBacking {
  if (typeof backing !== 'object' || backing === null) nativeFileOf(backing); // throws what a backing is
  const { file, offset } = readOptions(backing, ['file', 'offset'], 'a backing');
  nativeFileOf(file); // rejects other objects
  if (typeof offset === 'bigint' && offset >= 0n) return { file, offset };
  throw new PeerDmaError(
    'ERR_INVALID_ARGUMENT',
    `the offset in ${file.name} is a non-negative bigint, not ${valueText(offset)}`,
  );
}

/** The same memory, `by` bytes further on. @internal */
export function advance(store: Store, by: bigint): Store {
  return by === 0n ? store : { ...store, offset: store.offset + by };
}

/** Whether both are the same memory at the same offset. @internal */
export function sameStore(a: Store, b: Store): boolean {
  return a.file === b.file && a.private === b.private && a.offset === b.offset;
}

/** Whether two sub-mappings have a page of private memory in common. @internal */
export function sharePrivateMemory(a: Stretch, b: Stretch): boolean {
  if (a.store.private === undefined || a.store.private !== b.store.private) return false;
  return a.store.offset < b.store.offset + b.range.length && b.store.offset < a.store.offset + a.range.length;
}

interface Stretch {
  readonly range: { readonly length: bigint };
  readonly store: Store;
}

/** The backing that requests to targets carry for a store. @internal */
export function requestBackingOf(store: Store): Backing {
  return store.file === undefined ? 'private' : { file: requestFileOf(store.file), offset: store.offset };
}

/** Whether the store is the memory of a device. @internal */
export function isDevice({ file }: Store): boolean {
  return deviceStateOf(file) !== undefined;
}

/** Whether the memory of a store is there now: a file may have been truncated, a device switched off. @internal */
export function isPresent({ file, offset }: Store, length: bigint): boolean {
  const device = deviceStateOf(file);
  if (device !== undefined) return device.accessible;
  return file === undefined || reaches(file, offset + length);
}

/** Whether a file has all bytes up to an offset now; closed or not, as long as somebody retains it. @internal */
export function reaches(file: MemoryFile, end: bigint): boolean {
  return native(() => nativeFileOf(file).isPresent(end));
}

/** Faults a part of a store's file in, which is mapped nowhere for it. @throws {PeerDmaError} `ERR_MEMORY_FAULT`, `ERR_HUGE_PAGES_UNAVAILABLE` @internal */
export async function faultIn(store: Store, length: bigint): Promise<void> {
  const { file, offset } = store;
  if (file === undefined) return;
  await nativeAsync(() => nativeFileOf(file).faultIn(offset, length, store.transparentHugePages));
}

/** The error for a file that was long enough when it was mapped. @internal */
export function truncated(
  { file, offset }: Store,
  range: AddressRange,
  details: { readonly target?: string; readonly cause?: unknown },
): PeerDmaError {
  return new PeerDmaError(
    'ERR_MEMORY_FAULT',
    `${file?.name} has been truncated: ${range} shows ${hex(range.length)} bytes from ${hex(offset)} on, which it no longer has`,
    { range, ...details },
  );
}

/** Copies bytes out of a store, `at` bytes into it. @internal */
export function readStore(store: Store, at: bigint, into: Uint8Array): void {
  const { file } = store;
  const access = deviceStateOf(file)?.access;
  if (file === undefined) store.private.read(store.offset + at, into);
  else if (access !== undefined) access.read(store.offset + at, into);
  else native(() => nativeFileOf(file).read(store.offset + at, into));
}

/** Copies bytes into a store, `at` bytes into it. @internal */
export function writeStore(store: Store, at: bigint, bytes: Uint8Array): void {
  const { file } = store;
  const access = deviceStateOf(file)?.access;
  if (file === undefined) store.private.write(store.offset + at, bytes);
  else if (access !== undefined) access.write(store.offset + at, bytes);
  else native(() => nativeFileOf(file).write(store.offset + at, bytes));
}
