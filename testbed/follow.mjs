// Copies the text that a guest appends to a file to a stream.
import { once } from 'node:events';
import { open } from 'node:fs/promises';

/** Follows one file, which may not exist yet. */
export class Follower {
  #path;
  #stream;
  #withoutReturns;
  /** @type {import("node:fs/promises").FileHandle | undefined} */
  #file;
  #buffer = Buffer.allocUnsafe(1 << 18);

  /**
   * @param {string} path
   * @param {import("node:stream").Writable} stream
   * @param {{ withoutReturns?: boolean }} [options] `withoutReturns`: removes the carriage returns of a serial line
   */
  constructor(path, stream, { withoutReturns = false } = {}) {
    this.#path = path;
    this.#stream = stream;
    this.#withoutReturns = withoutReturns;
  }

  /**
   * Copies new text, as far as the stream accepts it now. Does not wait for the reader of the stream, and returns
   * even if the guest keeps writing.
   */
  async pump() {
    for (let chunks = 0; chunks < 16 && !this.#stream.writableNeedDrain; chunks++) if (!(await this.#copy())) return;
  }

  /** Copies the rest of an ended guest, however long the stream takes. */
  async finish() {
    while (await this.#copy())
      if (this.#stream.writableNeedDrain)
        await Promise.race([once(this.#stream, 'drain'), once(this.#stream, 'close')]).catch(() => {});
    await this.#file?.close();
    this.#file = undefined;
  }

  /** @returns {Promise<boolean>} whether there was new text */
  async #copy() {
    this.#file ??= await open(this.#path).catch(() => undefined);
    if (this.#file === undefined || this.#stream.destroyed) return false;
    const { bytesRead } = await this.#file.read(this.#buffer, 0, this.#buffer.length, null);
    const bytes = Uint8Array.from(this.#buffer.subarray(0, bytesRead));
    if (bytesRead > 0) this.#stream.write(this.#withoutReturns ? bytes.filter((byte) => byte !== 0x0d) : bytes);
    return bytesRead > 0;
  }
}
