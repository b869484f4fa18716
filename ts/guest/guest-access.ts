/**
 * Copies to and from guest-physical addresses. RAM of sealed files is copied through a mapping that cannot fault. Other
 * memory is copied by the kernel or by its device: a page that is missing there is an error, never a signal.
 */
import { AddressRange, hex } from '../address-range.ts';
import { copyOf, newBytes, requireByteLength, requireBytes, requireCount } from '../arguments.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { PeerDmaError } from '../errors.ts';
import type { IntervalMap } from '../interval-map.ts';
import { isDevice, readMemory, writeMemory } from '../memory/backing.ts';
import type { FileBlock } from '../memory/file-blocks.ts';
import { requireBigint, requireNumber } from '../number-types.ts';
import { valueText } from '../value-text.ts';

type FlatMap = IntervalMap<SubMapping>;

/** Above it, numbers are not exact. */
const EXACT = 2 ** 53;

/** `set` of every `Uint8Array`. A class of the caller may have one of its own, which would get guest memory. */
const { set } = Uint8Array.prototype;

/**
 * Guest memory as the VMM reads and writes it. Keeps the block in which it found the last address: the accesses of a
 * device model are near one another.
 *
 * @internal
 */
export class GuestAccess {
  readonly #flatMap: () => FlatMap;
  /** The map of the fields below. */
  #found: FlatMap | undefined;
  /** Guest-physical addresses that {@link GuestAccess.#block} has, as part of one sub-mapping. */
  #start = 0;
  #end = 0;
  /** Subtracted from an address, it gives the offset in the block. */
  #base = 0;
  #block: FileBlock | undefined;
  /** The offset in the block of the last access that {@link GuestAccess.#blockOf} found. */
  #at = 0;

  /** @param flatMap the map in force; throws if there is none any more */
  constructor(flatMap: () => FlatMap) {
    this.#flatMap = flatMap;
  }

  read(gpa: bigint, length: number): Uint8Array {
    const flat = this.#flatMap();
    if (requireCount(length) === 0) return new Uint8Array();
    const block = this.#blockOf(flat, gpa, length);
    if (block === undefined) return this.#readAll(flat, gpa, length, () => newBytes(length, 'guest memory'));
    return copyOf(new Uint8Array(block.buffer, this.#at, length), 'guest memory');
  }

  readInto(gpa: bigint, bytes: Uint8Array): void {
    const flat = this.#flatMap();
    const length = requireByteLength(bytes);
    if (length === 0) return;
    const block = this.#blockOf(flat, gpa, length);
    if (block === undefined) this.#readAll(flat, gpa, length, () => requireBytes(bytes));
    else set.call(bytes, new Uint8Array(block.buffer, this.#at, length));
  }

  write(gpa: bigint, bytes: Uint8Array): void {
    const flat = this.#flatMap();
    const length = requireByteLength(bytes);
    if (length === 0) return;
    const block = this.#blockOf(flat, gpa, length);
    if (block !== undefined) {
      set.call(block.bytes, bytes, this.#at);
      return;
    }
    const from = requireBytes(bytes);
    requireBigint(gpa, 'gpa');
    const range = AddressRange.of(gpa, BigInt(length));
    for (const { value, part } of cover(flat, range)) {
      writeMemory(value.memory, part.start - value.range.start, slice(from, range, part));
    }
  }

  read8(gpa: bigint): number {
    const view = this.#viewOf(gpa, 1);
    return view === undefined ? this.#bytesAt(gpa, 1).getUint8(0) : view.getUint8(this.#at);
  }

  read16(gpa: bigint): number {
    const view = this.#viewOf(gpa, 2);
    if (view === undefined) return this.#bytesAt(gpa, 2).getUint16(0, true);
    return view.getUint16(this.#at, true);
  }

  read32(gpa: bigint): number {
    const view = this.#viewOf(gpa, 4);
    if (view === undefined) return this.#bytesAt(gpa, 4).getUint32(0, true);
    return view.getUint32(this.#at, true);
  }

  read64(gpa: bigint): bigint {
    const view = this.#viewOf(gpa, 8);
    if (view === undefined) return this.#bytesAt(gpa, 8).getBigUint64(0, true);
    return view.getBigUint64(this.#at, true);
  }

  write8(gpa: bigint, value: number): void {
    requireBits(value, 8);
    const view = this.#viewOf(gpa, 1);
    if (view === undefined) this.write(gpa, Uint8Array.of(value));
    else view.setUint8(this.#at, value);
  }

  write16(gpa: bigint, value: number): void {
    requireBits(value, 16);
    const view = this.#viewOf(gpa, 2);
    if (view === undefined) this.#writeEncoded(gpa, 2, (bytes) => bytes.setUint16(0, value, true));
    else view.setUint16(this.#at, value, true);
  }

  write32(gpa: bigint, value: number): void {
    requireBits(value, 32);
    const view = this.#viewOf(gpa, 4);
    if (view === undefined) this.#writeEncoded(gpa, 4, (bytes) => bytes.setUint32(0, value, true));
    else view.setUint32(this.#at, value, true);
  }

  write64(gpa: bigint, value: bigint): void {
    requireBigint(value, 'value');
    if (BigInt.asUintN(64, value) !== value) throw notUnsigned(value, '64', 'bigint');
    const view = this.#viewOf(gpa, 8);
    if (view === undefined) this.#writeEncoded(gpa, 8, (bytes) => bytes.setBigUint64(0, value, true));
    else view.setBigUint64(this.#at, value, true);
  }

  #writeEncoded(gpa: bigint, length: number, encode: (view: DataView) => void): void {
    const bytes = new Uint8Array(length);
    encode(new DataView(bytes.buffer));
    this.write(gpa, bytes);
  }

  #bytesAt(gpa: bigint, length: number): DataView {
    return new DataView(this.#readAll(this.#flatMap(), gpa, length, () => new Uint8Array(length)).buffer);
  }

  /** @param allocate called once all of the memory is found: a guest may have chosen the length */
  #readAll<T extends Uint8Array>(flat: FlatMap, gpa: bigint, length: number, allocate: () => T): T {
    requireBigint(gpa, 'gpa');
    const range = AddressRange.of(gpa, BigInt(length));
    const parts = cover(flat, range);
    const bytes = allocate();
    for (const { value, part } of parts) {
      readMemory(value.memory, part.start - value.range.start, slice(bytes, range, part));
    }
    return bytes;
  }

  #viewOf(gpa: bigint, length: number): DataView | undefined {
    return this.#blockOf(this.#flatMap(), gpa, length)?.view;
  }

  /** The block that has all of these bytes, the first at {@link GuestAccess.#at}, if one has. */
  #blockOf(flat: FlatMap, gpa: bigint, length: number): FileBlock | undefined {
    if (typeof gpa !== 'bigint') return undefined; // which the long way rejects
    const address = Number(gpa);
    if ((flat !== this.#found || address < this.#start || address >= this.#end) && !this.#search(flat, gpa)) {
      return undefined;
    }
    this.#at = address - this.#base;
    return address + length <= this.#end ? this.#block : undefined;
  }

  #search(flat: FlatMap, gpa: bigint): boolean {
    const sub = flat.at(gpa);
    if (sub?.memory.file === undefined || isDevice(sub.memory) || sub.range.end > EXACT) return false;
    const offset = Number(sub.memory.offset + (gpa - sub.range.start));
    const block = sub.memory.file.blocks.at(offset);
    if (block === undefined) return false;
    this.#found = flat;
    this.#block = block;
    this.#base = Number(gpa) - (offset - block.start);
    this.#start = Math.max(Number(sub.range.start), this.#base);
    this.#end = Math.min(Number(sub.range.end), this.#base + block.bytes.length);
    return true;
  }
}

/** The bytes of `part` in an array that has those of `whole`. */
function slice(bytes: Uint8Array, whole: AddressRange, part: AddressRange): Uint8Array {
  return bytes.subarray(Number(part.start - whole.start), Number(part.end - whole.start));
}

/** All parts, found before the first is copied: an access that cannot be done in full is not begun. */
function cover(flat: FlatMap, range: AddressRange): { value: SubMapping; part: AddressRange }[] {
  const { parts, gap } = flat.cover(range);
  if (gap === undefined) return parts;
  throw new PeerDmaError('ERR_NOT_MAPPED', `no guest memory at ${hex(gap)}, in the access ${range}`, { range });
}

function requireBits(value: number, bits: 8 | 16 | 32): void {
  if (Number.isInteger(value) && value >= 0 && value < 2 ** bits) return;
  requireNumber(value, 'value');
  throw notUnsigned(value, `${bits}`, 'number');
}

function notUnsigned(value: unknown, bits: string, type: string): PeerDmaError {
  return new PeerDmaError(
    'ERR_INVALID_ARGUMENT',
    `"value" is an unsigned ${type} of ${bits} bits, not ${valueText(value)}`,
  );
}
