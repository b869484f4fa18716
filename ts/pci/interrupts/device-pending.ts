/**
 * The pending bits of MSI-X that a device itself has: those of vectors that nobody is connected to, which the host has
 * masked.
 */

/** Bytes of a word of bits. */
const WORD = 8;
const BITS = 64;

/** @internal */
export class DevicePending {
  readonly #read: (offset: number, length: number) => Uint8Array;
  /** Bytes: whole words of 64 bits. */
  readonly length: number;

  /** @param read gives the bytes that the device has; throws where its BAR does not answer */
  constructor(vectors: number, read: (offset: number, length: number) => Uint8Array) {
    this.length = Math.ceil(vectors / BITS) * WORD;
    this.#read = read;
  }

  /** @throws {PeerDmaError} what the device's region said */
  read(offset: number, length: number): Uint8Array {
    return this.#read(offset, length);
  }

  /** Whether a vector is pending. Nobody knows while the device does not answer: no, then. */
  has(vector: number): boolean {
    return isSet(this.#word(Math.floor(vector / BITS)), vector);
  }

  /** As {@link DevicePending.has}, of those vectors. */
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
      // Ones are what a bus reads where nobody answers, such as a device that sleeps.
      return word === BigInt.asUintN(BITS, -1n) ? 0n : word;
    } catch {
      return 0n; // its BAR is off
    }
  }
}

function isSet(word: bigint, vector: number): boolean {
  return ((word >> BigInt(vector % BITS)) & 1n) !== 0n;
}
