/**
 * Windows onto a memory file in this process, for copies without a system call.
 */
import type { NativeMemoryFile, NativeWindow } from '#native';

/** Bytes of a window. All supported versions of Node allow larger ArrayBuffers. */
const SIZE = 2 ** 30;

/** Part of a file. @internal */
export interface FileWindow {
  /** Offset in the file. */
  readonly start: number;
  readonly buffer: ArrayBuffer;
  /** All bytes of the buffer. */
  readonly bytes: Uint8Array;
  /** All bytes of the buffer. */
  readonly view: DataView;
}

interface Mapped extends FileWindow {
  readonly native: NativeWindow;
}

/**
 * The windows of one file. Each is mapped on first use; {@link FileWindows.close} unmaps them all. Their buffers do not
 * leave this package: `close` detaches them.
 *
 * @internal
 */
export class FileWindows {
  readonly #file: NativeMemoryFile;
  /** By their index in the file. */
  readonly #windows = new Map<number, Mapped>();
  /** `false` after a window could not be mapped. */
  #isMappable = true;

  constructor(file: NativeMemoryFile) {
    this.#file = file;
  }

  /**
   * Returns the window that contains a byte.
   *
   * Returns `undefined` if the byte is past the end of the file, if the process cannot have another mapping, or if the
   * file can shrink. Only the kernel copies bytes of such a file without a signal.
   *
   * @param offset in the file, 0 to 2^53
   */
  at(offset: number): FileWindow | undefined {
    const index = Math.floor(offset / SIZE);
    const known = this.#windows.get(index);
    if (known !== undefined || !this.#isMappable) return known;
    const mapped = this.#map(offset);
    if (mapped === undefined) this.#isMappable = false;
    else this.#windows.set(index, mapped);
    return mapped;
  }

  /** Unmaps all. */
  close(): void {
    for (const { native, buffer } of this.#windows.values()) native.close(buffer);
    this.#windows.clear();
    this.#isMappable = false;
  }

  #map(offset: number): Mapped | undefined {
    try {
      const native = this.#file.windowAround(BigInt(offset), BigInt(SIZE));
      if (native === null) return undefined;
      const buffer = native.buffer();
      const start = Number(native.start);
      return { native, start, buffer, bytes: new Uint8Array(buffer), view: new DataView(buffer) };
    } catch {
      return undefined; // the caller copies by a system call instead, which reports the error
    }
  }
}
