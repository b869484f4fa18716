/**
 * The records of a simulated device's migration data: a header of 24 bytes and a payload.
 *
 * The header has the number of a part of the device, and offset and length of the payload within the part.
 */

/** Bytes in a header: section and zeros (32 bits each), offset, length (64 bits each). */
const HEADER = 24;

/** A part of a record's payload. @internal */
export interface RecordPiece {
  readonly section: number;
  /** Bytes from the start of the section. */
  readonly offset: bigint;
  readonly bytes: Uint8Array;
  /** Whether the record ends with it. */
  readonly isLast: boolean;
}

/** The header of a record. @internal */
export function recordHeader(section: number, offset: bigint, length: bigint): Uint8Array {
  const header = new DataView(new ArrayBuffer(HEADER));
  header.setUint32(0, section, true);
  header.setBigUint64(8, offset, true);
  header.setBigUint64(16, length, true);
  return new Uint8Array(header.buffer);
}

/** A record with a short payload. @internal */
export function shortRecord(section: number, payload: Uint8Array): Uint8Array {
  return Buffer.concat([recordHeader(section, 0n, BigInt(payload.length)), payload]);
}

/** Splits chunks into records, whatever the chunks are. @internal */
export class RecordReader {
  readonly #header = new Uint8Array(HEADER);
  /** Bytes of the header so far. */
  #filled = 0;
  #section = 0;
  #offset = 0n;
  /** Bytes of the payload that are missing. */
  #missing = 0n;

  /** Whether the data so far ends between two records. */
  get isBetweenRecords(): boolean {
    return this.#filled === 0;
  }

  /** Yields the payloads in a chunk. */
  *pieces(chunk: Uint8Array): Generator<RecordPiece> {
    let at = 0;
    while (at < chunk.length || (this.#filled === HEADER && this.#missing === 0n)) {
      if (this.#filled < HEADER) {
        const taken = chunk.subarray(at, at + HEADER - this.#filled);
        this.#header.set(taken, this.#filled);
        this.#filled += taken.length;
        at += taken.length;
        if (this.#filled < HEADER) return;
        const view = new DataView(this.#header.buffer);
        this.#section = view.getUint32(0, true);
        this.#offset = view.getBigUint64(8, true);
        this.#missing = view.getBigUint64(16, true);
      }
      const rest = chunk.length - at;
      const bytes = chunk.subarray(at, at + (this.#missing < BigInt(rest) ? Number(this.#missing) : rest));
      if (bytes.length === 0 && this.#missing > 0n) return;
      const offset = this.#offset;
      this.#offset += BigInt(bytes.length);
      this.#missing -= BigInt(bytes.length);
      at += bytes.length;
      const isLast = this.#missing === 0n;
      if (isLast) this.#filled = 0;
      yield { section: this.#section, offset, bytes, isLast };
    }
  }
}
