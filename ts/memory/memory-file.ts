/**
 * Files whose pages can back guest memory: memfds, huge-page files, other descriptors, and the file of an opened VFIO
 * device (its BARs).
 */
import { NativeMemoryFile } from '#native';
import {
  newBytes,
  readOptions,
  requireAccess,
  requireBytes,
  requireIndex,
  requireUnsigned,
  requireViewable,
} from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import { INSPECT, objectText } from '../object-text.ts';
import { sizeOf } from '../size.ts';
import { native } from '../native-call.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import { FileWindows } from './file-windows.ts';

/** The size of the huge pages of a {@link MemoryFile}. */
export type HugePageSize = '2M' | '1G';

/** The length of a device's file. */
const DEVICE_LENGTH = (1n << 64n) - 1n;

const HUGE_PAGE_SHIFT: Readonly<Record<HugePageSize, number>> = { '2M': 21, '1G': 30 };

/**
 * The binary logarithm of a huge page's bytes.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for any other value
 * @internal
 */
export function hugePageShift(size: HugePageSize): number {
  if (typeof size === 'string' && Object.hasOwn(HUGE_PAGE_SHIFT, size)) return HUGE_PAGE_SHIFT[size];
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `huge pages are '2M' or '1G', not ${valueText(size)}`);
}

// Set by the class below: access to its private fields for this package.
/** The native handle behind a file. @internal */
export let nativeFileOf: (file: MemoryFile) => NativeMemoryFile;
/** Wraps a native handle that another part of this package opened. @internal */
export let wrapNativeFile: (handle: NativeMemoryFile, name: string) => MemoryFile;
/** Keeps a file's memory open, even after the file is closed, until the returned function is called. @internal */
export let retainFile: (file: MemoryFile) => () => void;
/** The file that requests to targets carry for a file: open while the original is open or mapped. @internal */
export let requestFileOf: (file: MemoryFile) => MemoryFile;
/** Returns the file behind a request's file; any other file is returned itself. @internal */
export let originalOf: (file: MemoryFile) => MemoryFile;
/** The windows onto a file, valid while the file is open or mapped. @internal */
export let windowsOf: (file: MemoryFile) => FileWindows;
/**
 * Maps part of a file made by {@link MemoryFile.create} as a buffer, which outlives the file.
 *
 * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` for more bytes than an `ArrayBuffer` can have
 * @internal
 */
export let viewFile: (file: MemoryFile, offset: bigint, length: bigint) => ArrayBuffer;

/** Memory that exists as a file, so that several mappings, processes and IOMMUs can share it. */
export class MemoryFile {
  readonly #handle: NativeMemoryFile;
  /** Number of mappings of the file; they keep it open. */
  #users = 0;
  #closed = false;
  /** The file behind a request's file. */
  readonly #original: MemoryFile | undefined;
  #requestFile: MemoryFile | undefined;
  #releaseUse: (() => void) | undefined;
  #windows: FileWindows | undefined;
  /** Name in errors and in {@link GuestMemory.inspect}. */
  readonly name: string;

  static {
    nativeFileOf = (file) => {
      if (typeof file !== 'object' || file === null || !(#handle in file)) {
        throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'a backing is a MemoryFile with an offset, or "private"');
      }
      return file.#handle;
    };
    wrapNativeFile = (handle, name) => new MemoryFile(PACKAGE_KEY, handle, name);
    viewFile = (file, offset, length) => {
      const handle = file.#open();
      requireViewable(length, file.name);
      return native(() => handle.view(offset, length));
    };
    windowsOf = (file) => (file.#windows ??= new FileWindows(file.#handle));
    requestFileOf = (file) => (file.#requestFile ??= new MemoryFile(PACKAGE_KEY, file.#handle, file.name, file));
    originalOf = (file) => {
      nativeFileOf(file); // rejects other objects
      return file.#original ?? file;
    };
    retainFile = (given) => {
      const file = originalOf(given);
      if (file.#users === 0) file.#open(); // throws if it is closed; a mapped file is still open
      file.#users++;
      // All mappings of the file share one function: there may be many.
      return (file.#releaseUse ??= () => {
        if (--file.#users === 0 && file.#closed) file.#release();
      });
    };
  }

  private constructor(key: typeof PACKAGE_KEY, handle: NativeMemoryFile, name: string, original?: MemoryFile) {
    requirePackageKey(key, 'MemoryFile.create()');
    this.#handle = handle;
    this.name = name;
    this.#original = original;
  }

  /**
   * Makes an anonymous file (memfd) of `length` bytes, sealed so that it cannot shrink under a mapping.
   *
   * @param length bytes, a multiple of the page size used
   * @throws {PeerDmaError} `ERR_EMPTY_RANGE`, `ERR_UNALIGNED`, `ERR_HUGE_PAGES_UNAVAILABLE` if the host has reserved no
   * huge pages of that size, `ERR_SYSTEM`
   */
  static create(length: bigint, options: { name?: string; hugePages?: HugePageSize } = {}): MemoryFile {
    const { name = 'memory', hugePages } = readOptions(options, ['name', 'hugePages']);
    if (typeof name !== 'string') {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the name of a memory file is a string, not ${valueText(name)}`);
    }
    requireUnsigned(length, 'length');
    const shift = hugePages === undefined ? 0 : hugePageShift(hugePages);
    return new MemoryFile(
      PACKAGE_KEY,
      native(() => NativeMemoryFile.create(length, name, shift)),
      name,
    );
  }

  /**
   * Duplicates a descriptor; the caller still owns the given one. The file is not sealed: if it is truncated, maps of
   * the missing part fail with `ERR_MEMORY_FAULT`.
   *
   * @param fd a descriptor of this process, 0 to 2^31 - 1
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a descriptor that is not open
   */
  static fromFd(fd: number): MemoryFile {
    requireIndex(fd, 'fd');
    return new MemoryFile(
      PACKAGE_KEY,
      native(() => NativeMemoryFile.fromFd(fd)),
      `fd ${fd}`,
    );
  }

  /** Bytes in the file now; 2^64 - 1 for a device's file. */
  get length(): bigint {
    return native(() => this.#open().length());
  }

  /** Bytes in a page of this file: addresses, lengths and offsets of mappings are multiples of it. */
  get pageSize(): bigint {
    return native(() => this.#open().pageSize());
  }

  /** The descriptor, for example for `SCM_RIGHTS` or `/proc/self/fd`. This object still owns it. */
  get fd(): number {
    return native(() => this.#open().fd);
  }

  /**
   * Copies bytes out.
   *
   * @param offset bytes from the start of the file
   * @param length bytes
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` past the end of the file, `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`
   */
  read(offset: bigint, length: number): Uint8Array {
    const handle = this.#open();
    requireAccess(offset, length, this.length, this.name);
    const bytes = newBytes(length, this.name);
    native(() => handle.read(offset, bytes));
    return bytes;
  }

  /**
   * Copies bytes in; never makes the file longer.
   *
   * @param offset bytes from the start of the file
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` past the end of the file
   */
  write(offset: bigint, bytes: Uint8Array): void {
    const from = requireBytes(bytes);
    requireUnsigned(offset, 'offset');
    native(() => this.#open().write(offset, from));
  }

  /**
   * Closes this handle. Mappings of the file remain. Idempotent. Does nothing on the file of a {@link DmaMapRequest}.
   */
  close(): void {
    if (this.#original !== undefined) return;
    this.#closed = true;
    if (this.#users === 0) this.#release();
  }

  /** As {@link MemoryFile.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'MemoryFile', () => {
      const { name } = this;
      const file = originalOf(this);
      const mapped = file.#users > 0 ? ['mapped'] : [];
      if (file.#closed) return [`"${name}"`, 'closed', ...mapped];
      const size = this.length === DEVICE_LENGTH ? '' : ` (${sizeOf(this.length)})`;
      return [`"${name}"${size}`, `fd: ${this.fd}`, `pageSize: ${sizeOf(this.pageSize)}`, 'open', ...mapped];
    });
  }

  #release(): void {
    this.#windows?.close();
    native(() => this.#handle.close());
  }

  #open(): NativeMemoryFile {
    const file = originalOf(this);
    if (!file.#closed || (file !== this && file.#users > 0)) return this.#handle;
    throw new PeerDmaError('ERR_CLOSED', `the memory file ${this.name} is closed`);
  }
}
