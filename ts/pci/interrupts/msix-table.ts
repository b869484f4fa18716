/**
 * The emulated MSI-X table: an entry of 16 bytes for each vector.
 *
 * Only writable bits are stored (PCI Local Bus 3.0, 6.8.2).
 */
import { PeerDmaError } from '../../errors.ts';

/** Bytes in an entry: message address, its upper half, message data, vector control. */
const ENTRY = 16;
const ADDRESS = 0;
const DATA = 8;
const CONTROL = 12;
/** The one bit of vector control that is not reserved. */
const MASKED = 1;

/** The message of a vector: a 32-bit write. */
export interface InterruptMessage {
  /** Guest-physical. */
  readonly address: bigint;
  /** The written value: 32 bits, unsigned. */
  readonly data: number;
}

/** @internal */
export class MsixTable {
  readonly #bdf: string;
  readonly #bytes: DataView;

  /** @param vectors number of entries, 0 to 2048; initially all are masked and have no message */
  constructor(bdf: string, vectors: number) {
    this.#bdf = bdf;
    this.#bytes = new DataView(new ArrayBuffer(vectors * ENTRY));
    this.reset();
  }

  /** Number of entries. */
  get vectors(): number {
    return this.#bytes.byteLength / ENTRY;
  }

  /** Bytes. */
  get length(): number {
    return this.#bytes.byteLength;
  }

  /** Restores the power-on state. */
  reset(): void {
    this.#content.fill(0);
    for (let entry = 0; entry < this.vectors; entry++) this.#bytes.setUint8(entry * ENTRY + CONTROL, MASKED);
  }

  /** @throws {PeerDmaError} `ERR_OUT_OF_RANGE` */
  read(offset: number, length: number): Uint8Array {
    this.#requireWithin(offset, length);
    return this.#content.slice(offset, offset + length);
  }

  /**
   * Stores the writable bits.
   *
   * Not writable: the two lowest bits of an address, and the reserved bits of vector control.
   *
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE`
   */
  write(offset: number, bytes: Uint8Array): void {
    this.#requireWithin(offset, bytes.length);
    for (const [index, byte] of bytes.entries()) this.#bytes.setUint8(offset + index, byte & writable(offset + index));
  }

  /** Returns the entries that contain the bytes, as a half-open range. */
  entriesAt(offset: number, length: number): { readonly first: number; readonly end: number } {
    this.#requireWithin(offset, length);
    return { first: Math.floor(offset / ENTRY), end: Math.ceil((offset + length) / ENTRY) };
  }

  message(entry: number): InterruptMessage {
    const at = entry * ENTRY;
    return { address: this.#bytes.getBigUint64(at + ADDRESS, true), data: this.#bytes.getUint32(at + DATA, true) };
  }

  isMasked(entry: number): boolean {
    return (this.#bytes.getUint8(entry * ENTRY + CONTROL) & MASKED) !== 0;
  }

  get #content(): Uint8Array {
    return new Uint8Array(this.#bytes.buffer);
  }

  #requireWithin(offset: number, length: number): void {
    requireWithin(offset, length, this.#bytes.byteLength, `the MSI-X table of ${this.#bdf}`, this.#bdf);
  }
}

/** Returns the writable bits of a byte of the table. */
function writable(offset: number): number {
  const within = offset % ENTRY;
  if (within === ADDRESS) return 0xfc;
  if (within < CONTROL) return 0xff;
  return within === CONTROL ? MASKED : 0;
}

/** @internal */
export function requireWithin(offset: number, length: number, limit: number, what: string, bdf: string): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
  if (whole && offset >= 0 && length >= 0 && offset + length <= limit) return;
  throw new PeerDmaError('ERR_OUT_OF_RANGE', `${length} bytes at ${offset} are not within ${what}: it has ${limit}`, {
    bdf,
  });
}
