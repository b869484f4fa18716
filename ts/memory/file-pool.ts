/**
 * Allocates small memory files as parts of shared descriptors.
 */
import { NativeFilePool } from '#native';
import { native } from '../native-call.ts';
import { SharedFile } from './shared-file.ts';

/** @internal */
export class FilePool {
  readonly #pool: NativeFilePool;

  /** @param name of the files, as /proc shows it */
  constructor(name: string) {
    this.#pool = native(() => new NativeFilePool(name));
  }

  /**
   * Allocates a part of a file, filled with zeros. Its memory is released when the file handle is closed and the part
   * is neither mapped nor viewed.
   *
   * @param length bytes; whole pages
   * @param name for messages
   * @throws {PeerDmaError} `ERR_SYSTEM`
   */
  take(length: bigint, name: string): { file: SharedFile; offset: bigint } {
    const handle = native(() => this.#pool.take(length));
    return { file: new SharedFile(handle, name), offset: handle.partOffset };
  }
}
