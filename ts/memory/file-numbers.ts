/**
 * Numbers the files of a batch, for a call of the native core.
 */
import type { NativeMemoryFile } from '#native';
import { type MemoryFile, nativeFileOf } from './memory-file.ts';

/** The flags of a request have the number of its file from this bit on. */
const NUMBER_SHIFT = 32n;

/** @internal */
export class FileNumbers {
  /** Each file once, by its number. */
  readonly files: NativeMemoryFile[] = [];
  readonly #flags = new Map<MemoryFile, bigint>();
  #lastFile: MemoryFile | undefined;
  #lastFlags = 0n;

  /** The number of a file, as the flags of a request have it. Consecutive requests are mostly of one file. */
  flagsOf(file: MemoryFile): bigint {
    if (file === this.#lastFile) return this.#lastFlags;
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
