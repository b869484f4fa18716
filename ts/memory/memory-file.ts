/**
 * Files whose pages can back guest memory. They are memfds, huge-page files, other descriptors, and the file of an
 * opened VFIO device (its BARs).
 */
import { NativeMemoryFile } from '#native';
import { newBytes, readOptions, requireAccess, requireBytes, requireIndex, requireUnsigned } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import { INSPECT, objectText } from '../object-text.ts';
import { sizeOf } from '../size.ts';
import { native } from '../native-call.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import { SharedFile } from './shared-file.ts';

/** The size of the huge pages of a {@link MemoryFile}. */
export type HugePageSize = '2M' | '1G';

/** Options of {@link MemoryFile.create}. */
export interface MemoryFileOptions {
  /** Name of the file, also in `/proc/PID/maps`. Default: `memory` */
  readonly name?: string;
  /** Pages that the administrator has reserved. Default: pages of the usual size */
  readonly hugePages?: HugePageSize;
}

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

/** The memory of a file. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for other objects @internal */
export let fileMemoryOf: (file: MemoryFile) => SharedFile;
/** Makes the public object of memory that another part of this package opened. @internal */
export let newMemoryFile: (memory: SharedFile) => MemoryFile;
/** The file that requests to targets carry: open while the memory is open or mapped. @internal */
export let requestFileOf: (memory: SharedFile) => MemoryFile;

/** Memory that exists as a file, so that several mappings, processes and IOMMUs can share it. */
export class MemoryFile {
  /** Name in errors and in {@link GuestMemory.inspect}. */
  readonly name: string;
  readonly #memory: SharedFile;
  /** Whether it is the file of a {@link DmaMapRequest}. */
  readonly #isOfRequest: boolean;

  static {
    fileMemoryOf = (file) => {
      if (typeof file === 'object' && file !== null && #memory in file) return file.#memory;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'a backing is a MemoryFile with an offset, or "private"');
    };
    newMemoryFile = (memory) => new MemoryFile(PACKAGE_KEY, memory, false);
    requestFileOf = (memory) => (memory.requestFile ??= new MemoryFile(PACKAGE_KEY, memory, true));
  }

  private constructor(key: typeof PACKAGE_KEY, memory: SharedFile, isOfRequest: boolean) {
    requirePackageKey(key, 'MemoryFile.create()');
    this.name = memory.name;
    this.#memory = memory;
    this.#isOfRequest = isOfRequest;
  }

  /**
   * Makes an anonymous file (memfd) of `length` bytes, sealed so that it cannot shrink under a mapping.
   *
   * @param length bytes, a multiple of the page size used
   * @throws {PeerDmaError} `ERR_EMPTY_RANGE`, `ERR_UNALIGNED`, `ERR_HUGE_PAGES_UNAVAILABLE` if the host has reserved no
   * huge pages of that size, `ERR_SYSTEM`
   */
  static create(length: bigint, options: MemoryFileOptions = {}): MemoryFile {
    const { name = 'memory', hugePages } = readOptions(options, ['name', 'hugePages']);
    if (typeof name !== 'string') {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the name of a memory file is a string, not ${valueText(name)}`);
    }
    requireUnsigned(length, 'length');
    const shift = hugePages === undefined ? 0 : hugePageShift(hugePages);
    const handle = native(() => NativeMemoryFile.create(length, name, shift));
    return newMemoryFile(new SharedFile(handle, name));
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
    const handle = native(() => NativeMemoryFile.fromFd(fd));
    return newMemoryFile(new SharedFile(handle, `fd ${fd}`));
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
    if (!this.#isOfRequest) this.#memory.close();
  }

  /** As {@link MemoryFile.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'MemoryFile', () => {
      const { name } = this;
      const mapped = this.#memory.isMapped ? ['mapped'] : [];
      if (this.#memory.isClosed) return [`"${name}"`, 'closed', ...mapped];
      const size = this.length === DEVICE_LENGTH ? '' : ` (${sizeOf(this.length)})`;
      return [`"${name}"${size}`, `fd: ${this.fd}`, `pageSize: ${sizeOf(this.pageSize)}`, 'open', ...mapped];
    });
  }

  #open(): NativeMemoryFile {
    this.#memory.requireOpen(this.#isOfRequest);
    return this.#memory.handle;
  }
}
