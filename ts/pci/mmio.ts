/**
 * Accesses of a guest to BARs that a VMM brings along, since no memory is there or it plays the guest itself: which BAR
 * they fall into, and who answers.
 */
import { AddressRange } from '../address-range.ts';
import { newBytes, requireBytes, requireCount } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import type { DeviceRegion } from './physical-function.ts';

/** Something that answers for a part of a BAR in the device's stead, such as the MSI-X table. Offsets are its own. @internal */
export interface EmulatedArea {
  readonly bar: number;
  /** Offsets within the BAR. */
  readonly range: AddressRange;
  read(offset: bigint, length: number): Uint8Array;
  write(offset: bigint, bytes: Uint8Array): void;
}

/** A BAR where the guest has placed it. @internal */
export interface PlacedBar {
  readonly index: number;
  readonly range: AddressRange;
  readonly region: DeviceRegion;
}

/** The number of the ROM, which VFIO takes no writes to. */
const ROM = 6;

/** The widest single access that PCI's memory space has here. */
const WIDEST = 8;

/** @internal */
export class Mmio {
  readonly #device: string;
  readonly #emulated: readonly EmulatedArea[];

  constructor(device: string, emulated: readonly EmulatedArea[]) {
    this.#device = device;
    this.#emulated = emulated;
  }

  /** @throws {PeerDmaError} `ERR_NOT_MAPPED` where none of the BARs has all of it; what the region says */
  read(bars: Iterable<PlacedBar>, gpa: bigint, length: number): Uint8Array {
    requireCount(length);
    const { bar, start } = this.#locate(bars, gpa, length);
    const bytes = newBytes(length, this.#device);
    for (const [at, width] of accesses(start, length)) bytes.set(this.#read(bar, start + BigInt(at), width), at);
    return bytes;
  }

  /** Throws as {@link Mmio.read} does. */
  write(bars: Iterable<PlacedBar>, gpa: bigint, bytes: Uint8Array): void {
    const { length } = requireBytes(bytes);
    const { bar, start } = this.#locate(bars, gpa, length);
    for (const [at, width] of accesses(start, length)) {
      this.#write(bar, start + BigInt(at), bytes.subarray(at, at + width));
    }
  }

  #locate(bars: Iterable<PlacedBar>, gpa: bigint, length: number): { bar: PlacedBar; start: bigint } {
    const range = AddressRange.of(gpa, BigInt(length));
    for (const bar of bars) if (bar.range.contains(range)) return { bar, start: gpa - bar.range.start };
    throw new PeerDmaError(
      'ERR_NOT_MAPPED',
      `none of the BARs of ${this.#device} has ${range}: the guest has not placed one there, or has switched it off`,
      { range, device: this.#device },
    );
  }

  #read({ index, region }: PlacedBar, offset: bigint, width: number): Uint8Array {
    const area = this.#emulatedAt(index, offset);
    if (area !== undefined) return area.read(offset - area.range.start, width);
    // Past the end of a BAR whose length is no power of two the device has nothing.
    if (offset + BigInt(width) > region.length) return new Uint8Array(width).fill(0xff);
    if (width < WIDEST) return region.read(offset, width);
    const bytes = new Uint8Array(WIDEST);
    new DataView(bytes.buffer).setBigUint64(0, region.read64(offset), true);
    return bytes;
  }

  #write({ index, region }: PlacedBar, offset: bigint, bytes: Uint8Array): void {
    const area = this.#emulatedAt(index, offset);
    if (area !== undefined) return area.write(offset - area.range.start, bytes);
    if (index === ROM || offset + BigInt(bytes.length) > region.length) return undefined; // as hardware drops it
    if (bytes.length < WIDEST) return region.write(offset, bytes);
    return region.write64(offset, new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  }

  #emulatedAt(bar: number, offset: bigint): EmulatedArea | undefined {
    return this.#emulated.find((area) => area.bar === bar && area.range.contains(offset));
  }
}

/** An access cut into pieces that are aligned to their width: a device sees those. */
function* accesses(start: bigint, length: number): Generator<[at: number, width: number]> {
  for (let at = 0; at < length;) {
    let width = WIDEST;
    while (width > length - at || (start + BigInt(at)) % BigInt(width) !== 0n) width /= 2;
    yield [at, width];
    at += width;
  }
}
