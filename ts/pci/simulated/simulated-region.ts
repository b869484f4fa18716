/** A region of a simulated device, with the access rules of VFIO. */
import { AddressRange, hex } from '../../address-range.ts';
import { newBytes, requireAccess, requireBytes } from '../../arguments.ts';
import { type ErrorCode, PeerDmaError } from '../../errors.ts';
import { INSPECT } from '../../object-text.ts';
import { requireBigint, requireNumber } from '../../number-types.ts';
import type { Backing } from '../../memory/backing.ts';
import type { MemoryFile } from '../../memory/memory-file.ts';
import { alignedAccesses } from '../aligned-accesses.ts';
import { regionText } from '../region-text.ts';
import type { DeviceRegion } from '../physical-function.ts';
import { allOnes } from '../pci-fault.ts';
import { valueText } from '../../value-text.ts';

/** The contents of a region. @internal */
export interface RegionContents {
  /** Whether it is memory, which supports accesses of any length. Registers receive aligned accesses one by one. */
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
  /** The mappable memory. */
  readonly file?: MemoryFile;
  readonly mmapAreas?: readonly AddressRange[];
  readonly hostAddress?: bigint | undefined;
  /**
   * Whether the region decodes: if not, reads return ones and writes are dropped. Throws if VFIO rejects the access.
   */
  readonly decodes: () => boolean;
}

/**
 * Bytes of the pieces of an access.
 *
 * VFIO splits accesses other than {@link DeviceRegion.read64} into such pieces (Linux `vfio_pci_core_do_io_rw`).
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
    requireBigint(offset, 'offset', this.#shape.bdf);
    const { file } = this.#shape;
    if (file === undefined || this.mmapAreas.length === 0) {
      throw this.#error('ERR_NO_SUCH_REGION', `${this.#name} cannot be mapped, only read and written`);
    }
    if (offset < 0n || offset >= this.length) {
      const text = `${this.#name} has ${hex(this.length)} bytes: the offset ${valueText(offset)} is outside`;
      throw this.#error('ERR_OUT_OF_RANGE', text);
    }
    return { file, offset };
  }

  read(offset: bigint, length: number): Uint8Array {
    requireAccess(offset, length, this.length, this.#name);
    const { contents } = this.#shape;
    const decodes = this.#shape.decodes();
    if (decodes && contents.isMemory) return contents.read(offset, length);
    const bytes = newBytes(length, this.#name);
    if (!decodes) return bytes.fill(0xff);
    for (const [at, width] of alignedAccesses(offset, length, WIDEST))
      bytes.set(this.#load(offset + BigInt(at), width), at);
    return bytes;
  }

  write(offset: bigint, bytes: Uint8Array): void {
    const { length } = requireBytes(bytes);
    requireAccess(offset, length, this.length, this.#name);
    const { contents } = this.#shape;
    if (!this.#shape.decodes()) return;
    if (contents.isMemory) return void contents.write(offset, bytes);
    for (const [at, width] of alignedAccesses(offset, length, WIDEST)) {
      contents.write(offset + BigInt(at), bytes.slice(at, at + width));
    }
  }

  read32(offset: bigint): number {
    return this.#loadAligned(offset, 4).getUint32(0, true);
  }

  write32(offset: bigint, value: number): void {
    requireNumber(value, 'value', this.#shape.bdf);
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
    requireBigint(value, 'value', this.#shape.bdf);
    if (BigInt.asUintN(64, value) !== value) {
      throw this.#error(
        'ERR_INVALID_ARGUMENT',
        `a value of 64 bits is a bigint from 0n to 2^64 - 1, not ${valueText(value)}`,
      );
    }
    const bytes = new DataView(new ArrayBuffer(8));
    bytes.setBigUint64(0, value, true);
    this.#storeAligned(offset, bytes);
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return regionText(depth, 'SimulatedRegion', () => this.#shape.bdf, this);
  }

  get #name(): string {
    return `region ${this.index} of ${this.#shape.bdf}`;
  }

  #loadAligned(offset: bigint, width: number): DataView {
    this.#requireAligned(offset, width);
    const bytes = this.#shape.decodes() ? this.#load(offset, width) : allOnes(width);
    return new DataView(bytes.buffer, bytes.byteOffset, width);
  }

  #storeAligned(offset: bigint, { buffer, byteLength }: DataView<ArrayBuffer>): void {
    this.#requireAligned(offset, byteLength);
    if (this.#shape.decodes()) this.#shape.contents.write(offset, new Uint8Array(buffer));
  }

  /** Makes one access and checks the bytes that registers return. */
  #load(offset: bigint, width: number): Uint8Array {
    const bytes = requireBytes(this.#shape.contents.read(offset, width));
    if (bytes.length === width) return bytes;
    const reason = `its registers returned ${bytes.length} bytes, not ${width}`;
    const text = `${this.#name}: reading at ${hex(offset)} failed: ${reason}`;
    throw this.#error('ERR_INVALID_ARGUMENT', text);
  }

  #requireAligned(offset: bigint, width: number): void {
    if (typeof offset === 'bigint' && offset % BigInt(width) !== 0n) {
      const text = `offset ${hex(offset)} of ${this.#name} is not a multiple of the access width, ${width} bytes`;
      throw this.#error('ERR_UNALIGNED', text);
    }
    requireAccess(offset, width, this.length, this.#name);
  }

  #error(code: ErrorCode, message: string): PeerDmaError {
    return new PeerDmaError(code, message, { bdf: this.#shape.bdf });
  }
}
