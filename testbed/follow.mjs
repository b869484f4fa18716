// Copies to a stream what a guest appends to a file.
import { once } from 'node:events';
import { open } from 'node:fs/promises';

/** Follows one file, which need not exist yet. */
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
   * @param {{ withoutReturns?: boolean }} [options] `withoutReturns`: drop the carriage returns of a serial line
   */
  constructor(path, stream, { withoutReturns = false } = {}) {
    this.#path = path;
    this.#stream = stream;
    this.#withoutReturns = withoutReturns;
  }

  /**
   * Copies what has come since the last time, as far as the stream takes it now: never waits for who reads there, nor
   * goes on for as long as the guest writes.
   */
  async pump() {
    for (let chunks = 0; chunks < 16 && !this.#stream.writableNeedDrain; chunks++) if (!(await this.#copy())) return;
  }

  /** Copies all the rest, of a guest that has ended, however long the stream takes. */
  async finish() {
    while (await this.#copy())
      if (this.#stream.writableNeedDrain)
        await Promise.race([once(this.#stream, 'drain'), once(this.#stream, 'close')]).catch(() => {});
    await this.#file?.close();
    this.#file = undefined;
  }

  /** @returns {Promise<boolean>} whether there was anything */
  async #copy() {
    this.#file ??= await open(this.#path).catch(() => undefined);
    if (this.#file === undefined || this.#stream.destroyed) return false;
    const { bytesRead } = await this.#file.read(this.#buffer, 0, this.#buffer.length, null);
    const bytes = Uint8Array.from(this.#buffer.subarray(0, bytesRead));
    if (bytesRead > 0) this.#stream.write(this.#withoutReturns ? bytes.filter((byte) => byte !== 0x0d) : bytes);
    return bytesRead > 0;
  }
}
