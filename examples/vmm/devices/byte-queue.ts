/**
 * A queue of bytes that arrive in large arrays and leave in small ones.
 */

/** Bytes in the order of their arrival. The arrays are not copied. */
export class ByteQueue {
  readonly #arrays: Uint8Array[] = [];
  #length = 0;

  /** The number of bytes. */
  get length(): number {
    return this.#length;
  }

  push(bytes: Uint8Array): void {
    this.#arrays.push(bytes);
    this.#length += bytes.length;
  }

  /** Removes the first bytes: `count`, or all if there are fewer. */
  take(count: number): number[] {
    const taken: number[] = [];
    for (let first = this.#arrays[0]; first !== undefined && taken.length < count; first = this.#arrays[0]) {
      const part = first.subarray(0, count - taken.length);
      taken.push(...part);
      if (part.length < first.length) this.#arrays[0] = first.subarray(part.length);
      else this.#arrays.shift();
    }
    this.#length -= taken.length;
    return taken;
  }
}
