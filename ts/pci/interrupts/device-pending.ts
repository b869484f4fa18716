/**
 * The pending bits of MSI-X that a device itself has: those of vectors that nobody is connected to, which the host has
 * masked.
 */

/** @internal */
export class DevicePending {
  readonly #read: (offset: number, length: number) => Uint8Array;
  /** Bytes: whole words of 64 bits. */
  readonly length: number;

  /** @param read gives the bytes that the device has; throws where its BAR does not answer */
  constructor(vectors: number, read: (offset: number, length: number) => Uint8Array) {
    this.length = Math.ceil(vectors / 64) * 8;
    this.#read = read;
  }

  /** @throws {PeerDmaError} what the device's region said */
  read(offset: number, length: number): Uint8Array {
    return this.#read(offset, length);
  }

  /** Whether a vector is pending. Nobody knows while the device's BAR is off: no, then. */
  has(vector: number): boolean {
    return isSet(this.#look(vector >> 3, 1), vector & 7);
  }

  /** As {@link DevicePending.has}, of those vectors. */
  among(vectors: readonly number[]): number[] {
    if (vectors.length === 0) return [];
    const bits = this.#look(0, this.length);
    return vectors.filter((vector) => isSet(bits, vector));
  }

  #look(offset: number, length: number): Uint8Array {
    try {
      return this.#read(offset, length);
    } catch {
      return new Uint8Array(length);
    }
  }
}

function isSet(bits: Uint8Array, bit: number): boolean {
  return (((bits[bit >> 3] ?? 0) >> (bit & 7)) & 1) !== 0;
}
