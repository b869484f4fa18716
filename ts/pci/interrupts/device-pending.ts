/** The device's own MSI-X pending bits: those of unconnected vectors, which the host masks. */

/** Bytes of a word of bits. */
const WORD = 8;
const BITS = 64;

/** @internal */
export class DevicePending {
  readonly #read: (offset: number, length: number) => Uint8Array;
  /** Bytes: whole words of 64 bits. */
  readonly length: number;

  /** @param read returns bytes of the device; throws if its BAR does not decode */
  constructor(vectors: number, read: (offset: number, length: number) => Uint8Array) {
    this.length = Math.ceil(vectors / BITS) * WORD;
    this.#read = read;
  }

  /** @throws {PeerDmaError} the error of the device's region */
  read(offset: number, length: number): Uint8Array {
    return this.#read(offset, length);
  }

  /** Whether a vector is pending. False if the device does not respond. */
  has(vector: number): boolean {
    return isSet(this.#word(Math.floor(vector / BITS)), vector);
  }

  /** Returns those of the vectors that are pending, as {@link DevicePending.has}. */
  among(vectors: readonly number[]): number[] {
    const words = new Map<number, bigint>();
    return vectors.filter((vector) => {
      const index = Math.floor(vector / BITS);
      const word = words.get(index) ?? this.#word(index);
      words.set(index, word);
      return isSet(word, vector);
    });
  }

  #word(index: number): bigint {
    try {
      const word = this.#read(index * WORD, WORD).reduceRight((bits, byte) => (bits << 8n) | BigInt(byte), 0n);
      // All ones mean that the device does not respond, e.g. in a low-power state.
      return word === BigInt.asUintN(BITS, -1n) ? 0n : word;
    } catch {
      return 0n; // its BAR does not decode
    }
  }
}

function isSet(word: bigint, vector: number): boolean {
  return ((word >> BigInt(vector % BITS)) & 1n) !== 0n;
}
