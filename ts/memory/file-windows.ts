/**
 * The bytes of a memory file in this process, for copies without a call of the kernel.
 */
import type { NativeMemoryFile, NativeWindow } from '#native';

/** Bytes of a window. Every supported version of Node has larger ArrayBuffers. */
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
 * The windows of one file, each mapped when a byte of it is asked for, and unmapped by {@link FileWindows.close}. Their
 * buffers do not leave this package: after `close` they are detached.
 *
 * @internal
 */
export class FileWindows {
  readonly #file: NativeMemoryFile;
  /** By their number in the file. */
  readonly #windows = new Map<number, Mapped>();
  /** Whether the file can have windows, as far as is known. */
  #possible = true;

  constructor(file: NativeMemoryFile) {
    this.#file = file;
  }

  /**
   * The window that has a byte. `undefined` for a file whose bytes may stop being there (only the kernel copies those
   * without a signal), for a byte that is not in the file, and if the process can't have another mapping.
   *
   * @param offset in the file, 0 to 2^53
   */
  at(offset: number): FileWindow | undefined {
    const number = Math.floor(offset / SIZE);
    const known = this.#windows.get(number);
    if (known !== undefined || !this.#possible) return known;
    const made = this.#map(offset);
    if (made === undefined) this.#possible = false;
    else this.#windows.set(number, made);
    return made;
  }

  /** Unmaps all. */
  close(): void {
    for (const { native, buffer } of this.#windows.values()) native.close(buffer);
    this.#windows.clear();
    this.#possible = false;
  }

  #map(offset: number): Mapped | undefined {
    try {
      const native = this.#file.windowAround(BigInt(offset), BigInt(SIZE));
      if (native === null) return undefined;
      const buffer = native.buffer();
      const start = Number(native.start);
      return { native, start, buffer, bytes: new Uint8Array(buffer), view: new DataView(buffer) };
    } catch {
      return undefined; // whoever copies asks the kernel, which says what is wrong
    }
  }
}
