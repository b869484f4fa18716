/**
 * Numbers the files of a batch, for a call of the native core.
 */
import type { NativeMemoryFile } from '#native';
import { type MemoryFile, nativeFileOf } from './memory-file.ts';

/** The first bit of the file number in the flags of a request. */
const NUMBER_SHIFT = 32n;

/** @internal */
export class FileNumbers {
  /** Each file once, indexed by its number. */
  readonly files: NativeMemoryFile[] = [];
  readonly #flags = new Map<MemoryFile, bigint>();
  #lastFile: MemoryFile | undefined;
  #lastFlags = 0n;

  /** Returns the number of a file in the position that it has in the flags of a request. */
  flagsOf(file: MemoryFile): bigint {
    if (file === this.#lastFile) return this.#lastFlags; // consecutive requests mostly have the same file
    let flags = this.#flags.get(file);
    if (flags === undefined) {
      flags = BigInt(this.files.push(nativeFileOf(file)) - 1) << NUMBER_SHIFT;
      this.#flags.set(file, flags);
    }
    this.#lastFile = file;
    this.#lastFlags = flags;
    return flags;
  }
}
