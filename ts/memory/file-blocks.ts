/**
 * Blocks of a memory file that are mapped in this process, for copies without a system call.
 */
import type { NativeMemoryFile, NativeFileBlock } from '#native';

/** Bytes of a block. All supported versions of Node allow larger ArrayBuffers. */
const SIZE = 2 ** 30;

/** An aligned block of a file, which is mapped in this process. @internal */
export interface FileBlock {
  /** Offset in the file. */
  readonly start: number;
  readonly buffer: ArrayBuffer;
  /** All bytes of the buffer. */
  readonly bytes: Uint8Array;
  /** All bytes of the buffer. */
  readonly view: DataView;
}

interface Mapped extends FileBlock {
  readonly native: NativeFileBlock;
}

/**
 * The blocks of one file. Each is mapped on first use; {@link FileBlocks.close} unmaps them all. Their buffers do not
 * leave this package: `close` detaches them.
 *
 * @internal
 */
export class FileBlocks {
  readonly #file: NativeMemoryFile;
  /** By their index in the file. */
  readonly #blocks = new Map<number, Mapped>();
  /** `false` after a block could not be mapped. */
  #isMappable = true;

  constructor(file: NativeMemoryFile) {
    this.#file = file;
  }

  /**
   * Returns the block that contains a byte.
   *
   * Returns `undefined` if the byte is past the end of the file, if the process cannot have another mapping, or if the
   * file can shrink. Only the kernel copies bytes of such a file without a signal.
   *
   * @param offset in the file, 0 to 2^53
   */
  at(offset: number): FileBlock | undefined {
    const index = Math.floor(offset / SIZE);
    const known = this.#blocks.get(index);
    if (known !== undefined || !this.#isMappable) return known;
    const mapped = this.#map(offset);
    if (mapped === undefined) this.#isMappable = false;
    else this.#blocks.set(index, mapped);
    return mapped;
  }

  /** Unmaps all. */
  close(): void {
    for (const { native, buffer } of this.#blocks.values()) native.close(buffer);
    this.#blocks.clear();
    this.#isMappable = false;
  }

  #map(offset: number): Mapped | undefined {
    try {
      const native = this.#file.blockAround(BigInt(offset), BigInt(SIZE));
      if (native === null) return undefined;
      const buffer = native.buffer();
      const start = Number(native.start);
      return { native, start, buffer, bytes: new Uint8Array(buffer), view: new DataView(buffer) };
    } catch {
      return undefined; // the caller copies by a system call instead, which reports the error
    }
  }
}
