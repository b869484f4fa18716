/**
 * A region of a simulated device, with the manners of VFIO's.
 */
import { AddressRange, hex } from '../../address-range.ts';
import { newBytes, requireAccess, requireBytes } from '../../arguments.ts';
import { type ErrorCode, PeerDmaError } from '../../errors.ts';
import type { Backing } from '../../memory/backing.ts';
import type { MemoryFile } from '../../memory/memory-file.ts';
import { alignedAccesses } from '../aligned-accesses.ts';
import type { DeviceRegion } from '../physical-function.ts';
import { ones } from '../unanswered.ts';
import { valueText } from '../../value-text.ts';

/** What a region consists of. @internal */
export interface RegionContents {
  /** Whether it is memory, which takes accesses of any length anywhere; else it gets them one by one, as registers do. */
  readonly isMemory: boolean;
  read(offset: bigint, length: number): Uint8Array;
  write(offset: bigint, bytes: Uint8Array): void;
}

/** @internal */
export interface RegionShape {
  readonly bdf: string;
  readonly index: number;
  readonly length: bigint;
  readonly contents: RegionContents;
  /** The memory that can be mapped. */
  readonly file?: MemoryFile;
  readonly mmapAreas?: readonly AddressRange[];
  readonly hostAddress?: bigint | undefined;
  /** Whether anybody answers: if not, reads give ones and writes go nowhere. Throws where VFIO lets nobody ask. */
  readonly answers: () => boolean;
}

/**
 * VFIO cuts other accesses than {@link DeviceRegion.read64} into pieces of that many bytes (Linux
 * `vfio_pci_core_do_io_rw`).
 */
const WIDEST = 4;

/** @internal */
export class SimulatedRegion implements DeviceRegion {
  readonly index: number;
  readonly length: bigint;
  readonly mmapAreas: readonly AddressRange[];
  readonly hostAddress: bigint | undefined;
  readonly #shape: RegionShape;

  constructor(shape: RegionShape) {
    this.index = shape.index;
    this.length = shape.length;
    this.mmapAreas = shape.mmapAreas ?? [];
    this.hostAddress = shape.hostAddress;
    this.#shape = shape;
  }

  backing(offset = 0n): Backing {
    const { file } = this.#shape;
    if (file === undefined || this.mmapAreas.length === 0) {
      throw this.#error('ERR_NO_SUCH_REGION', `${this.#name} can't be mapped, only read and written`);
    }
    if (typeof offset !== 'bigint' || offset < 0n || offset >= this.length) {
      const text = `${this.#name} has ${hex(this.length)} bytes, and ${valueText(offset)} is not within`;
      throw this.#error('ERR_OUT_OF_RANGE', text);
    }
    return { file, offset };
  }

  read(offset: bigint, length: number): Uint8Array {
    requireAccess(offset, length, this.length, this.#name);
    const { contents } = this.#shape;
    const answers = this.#shape.answers();
    if (answers && contents.isMemory) return contents.read(offset, length);
    const bytes = newBytes(length, this.#name);
    if (!answers) return bytes.fill(0xff);
    for (const [at, width] of alignedAccesses(offset, length, WIDEST))
      bytes.set(this.#load(offset + BigInt(at), width), at);
    return bytes;
  }

  write(offset: bigint, bytes: Uint8Array): void {
    const { length } = requireBytes(bytes);
    requireAccess(offset, length, this.length, this.#name);
    const { contents } = this.#shape;
    if (!this.#shape.answers()) return;
    if (contents.isMemory) return void contents.write(offset, bytes);
    for (const [at, width] of alignedAccesses(offset, length, WIDEST)) {
      contents.write(offset + BigInt(at), bytes.slice(at, at + width));
    }
  }

  read32(offset: bigint): number {
    return this.#loadAligned(offset, 4).getUint32(0, true);
  }

  write32(offset: bigint, value: number): void {
    if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) {
      throw this.#error(
        'ERR_INVALID_ARGUMENT',
        `a value of 32 bits is a whole number from 0 to 2^32 - 1, not ${valueText(value)}`,
      );
    }
    const bytes = new DataView(new ArrayBuffer(4));
    bytes.setUint32(0, value, true);
    this.#storeAligned(offset, bytes);
  }

  read64(offset: bigint): bigint {
    return this.#loadAligned(offset, 8).getBigUint64(0, true);
  }

  write64(offset: bigint, value: bigint): void {
    if (typeof value !== 'bigint' || BigInt.asUintN(64, value) !== value) {
      throw this.#error(
        'ERR_INVALID_ARGUMENT',
        `a value of 64 bits is a bigint from 0n to 2^64 - 1, not ${valueText(value)}`,
      );
    }
    const bytes = new DataView(new ArrayBuffer(8));
    bytes.setBigUint64(0, value, true);
    this.#storeAligned(offset, bytes);
  }

  get #name(): string {
    return `region ${this.index} of ${this.#shape.bdf}`;
  }

  #loadAligned(offset: bigint, width: number): DataView {
    this.#requireAligned(offset, width);
    const bytes = this.#shape.answers() ? this.#load(offset, width) : ones(width);
    return new DataView(bytes.buffer, bytes.byteOffset, width);
  }

  #storeAligned(offset: bigint, { buffer, byteLength }: DataView<ArrayBuffer>): void {
    this.#requireAligned(offset, byteLength);
    if (this.#shape.answers()) this.#shape.contents.write(offset, new Uint8Array(buffer));
  }

  /** One access; what registers give is theirs, so it is looked at. */
  #load(offset: bigint, width: number): Uint8Array {
    const bytes = requireBytes(this.#shape.contents.read(offset, width));
    if (bytes.length === width) return bytes;
    const text = `${this.#name} was read at ${hex(offset)}: it gave ${bytes.length} bytes and not ${width}`;
    throw this.#error('ERR_INVALID_ARGUMENT', text);
  }

  #requireAligned(offset: bigint, width: number): void {
    if (typeof offset === 'bigint' && offset % BigInt(width) !== 0n) {
      const text = `offset ${hex(offset)} of ${this.#name} is no multiple of the ${width} bytes of the access`;
      throw this.#error('ERR_UNALIGNED', text);
    }
    requireAccess(offset, width, this.length, this.#name);
  }

  #error(code: ErrorCode, message: string): PeerDmaError {
    return new PeerDmaError(code, message, { device: this.#shape.bdf });
  }
}
