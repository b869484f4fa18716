/** Takes migration data for a simulated device. Memory is written at once, all other parts when it is complete. */
import { PeerDmaError, asError } from '../../../errors.ts';
import { type MemoryPart, SECTION, type StatePart } from './device-parts.ts';
import { RecordReader, type RecordPiece } from './records.ts';

/** Most bytes of a short part: a queue of DMA writes is the longest. */
const MAX_SHORT = 1 << 28;

/** @internal */
export class RestoredState {
  readonly #bdf: string;
  readonly #identity: Uint8Array;
  readonly #memory: ReadonlyMap<number, MemoryPart>;
  readonly #parts: ReadonlyMap<number, StatePart>;
  readonly #records = new RecordReader();
  /** Payloads of short parts so far, by section. */
  readonly #payloads = new Map<number, { pieces: Uint8Array[]; bytes: number }>();
  #isIdentified = false;
  #hasEnded = false;

  constructor(bdf: string, identity: Uint8Array, memory: readonly MemoryPart[], parts: readonly StatePart[]) {
    this.#bdf = bdf;
    this.#identity = identity;
    this.#memory = new Map(memory.map((part) => [part.section, part]));
    this.#parts = new Map(parts.map((part) => [part.section, part]));
  }

  /** Takes the next data. @throws {PeerDmaError} `ERR_MIGRATION_DATA` */
  take(chunk: Uint8Array): void {
    for (const piece of this.#records.pieces(chunk)) {
      if (this.#hasEnded) throw this.#rejected('it continues after its end');
      this.#takePiece(piece);
    }
  }

  /** Restores the parts. Does nothing and returns `false` if data is missing. @throws `ERR_MIGRATION_DATA` */
  apply(): boolean {
    if (!this.#hasEnded || !this.#records.isBetweenRecords) return false;
    for (const [section, part] of this.#parts) {
      try {
        part.load(this.#payload(section));
      } catch (error) {
        throw this.#rejected(`section ${section} is invalid: ${asError(error).message}`);
      }
    }
    return true;
  }

  #takePiece({ section, offset, bytes, isLast }: RecordPiece): void {
    if (!this.#isIdentified && section !== SECTION.identity) throw this.#rejected('it does not begin with an identity');
    const memory = this.#memory.get(section);
    if (memory !== undefined) {
      if (offset + BigInt(bytes.length) > memory.length) throw this.#rejected('it writes past the end of a BAR');
      return memory.file.write(offset, bytes);
    }
    if (section === SECTION.end) return void (this.#hasEnded = true);
    if (section !== SECTION.identity && !this.#parts.has(section))
      throw this.#rejected(`section ${section} is unknown`);
    const payload = this.#payloads.get(section) ?? { pieces: [], bytes: 0 };
    payload.bytes += bytes.length;
    if (payload.bytes > MAX_SHORT) throw this.#rejected(`section ${section} is too long`);
    payload.pieces.push(bytes.slice());
    this.#payloads.set(section, payload);
    if (section !== SECTION.identity || !isLast) return;
    if (Buffer.compare(this.#payload(section), this.#identity) !== 0) throw this.#rejected('it is of another device');
    this.#isIdentified = true;
  }

  #payload(section: number): Uint8Array {
    return Buffer.concat(this.#payloads.get(section)?.pieces ?? []);
  }

  #rejected(reason: string): PeerDmaError {
    const text = `${this.#bdf}: writing its migration data failed: ${reason}. Reset the device.`;
    return new PeerDmaError('ERR_MIGRATION_DATA', text, { bdf: this.#bdf });
  }
}
