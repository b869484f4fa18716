/**
 * Numbers the files of a batch, for a call of the native core.
 */
import type { NativeMemoryFile } from '#native';
import type { SharedFile } from './shared-file.ts';

/** The first bit of the file number in the flags of a request. */
const NUMBER_SHIFT = 32n;

/** @internal */
export class FileNumbers {
  /** Each file once, indexed by its number. */
  readonly files: NativeMemoryFile[] = [];
  readonly #flags = new Map<SharedFile, bigint>();
  #lastFile: SharedFile | undefined;
  #lastFlags = 0n;

  /** Returns the number of a file in the position that it has in the flags of a request. */
  flagsOf(file: SharedFile): bigint {
    if (file === this.#lastFile) return this.#lastFlags; // consecutive requests mostly have the same file
    let flags = this.#flags.get(file);
    if (flags === undefined) {
      flags = BigInt(this.files.push(file.handle) - 1) << NUMBER_SHIFT;
      this.#flags.set(file, flags);
    }
    this.#lastFile = file;
    this.#lastFlags = flags;
    return flags;
  }
}
