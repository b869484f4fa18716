/**
 * Accesses of a guest to BARs that a VMM brings along, since no memory is there or it plays the guest itself: which BAR
 * they fall into, and who answers.
 */
import { AddressRange } from '../address-range.ts';
import { requireBytes } from '../arguments.ts';
import { alignedAccesses, requireAccessLength } from './aligned-accesses.ts';
import { ROM_INDEX } from './config/bar-registers.ts';
import type { DeviceRegion } from './physical-function.ts';
import { type PciFaultEvent, answered, ones } from './unanswered.ts';

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

/** The widest single access that PCI's memory space has here. */
const WIDEST = 8;

/** @internal */
export class Mmio {
  /** For events. */
  readonly source: Pick<PciFaultEvent, 'memory' | 'device'>;
  readonly #emulated: readonly EmulatedArea[];

  constructor(source: Pick<PciFaultEvent, 'memory' | 'device'>, emulated: readonly EmulatedArea[]) {
    this.source = source;
    this.#emulated = emulated;
  }

  /** All ones for bytes that are in no BAR, or that the device does not answer for. */
  read(bars: Iterable<PlacedBar>, gpa: bigint, length: number): Uint8Array {
    const all = pieces([...bars], this.#range(gpa, length));
    const bytes = ones(length);
    for (const { bar, offset, at, width } of all) {
      const read = answered(
        () => this.#event('BAR read', bar, offset, width),
        () => this.#read(bar, offset, width),
      );
      if (read !== undefined) bytes.set(read, at);
    }
    return bytes;
  }

  /**
   * Drops bytes that are in no BAR, or that the device does not take.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_SETUP` where an entry of the MSI-X table can't be connected
   */
  write(bars: Iterable<PlacedBar>, gpa: bigint, bytes: Uint8Array): void {
    const { length } = requireBytes(bytes);
    for (const { bar, offset, at, width } of pieces([...bars], this.#range(gpa, length))) {
      const part = bytes.subarray(at, at + width);
      const area = this.#emulatedAt(bar.index, offset);
      if (area !== undefined) {
        area.write(offset - area.range.start, part);
        continue;
      }
      answered(
        () => this.#event('BAR write', bar, offset, width),
        () => writeRegion(bar, offset, part),
      );
    }
  }

  #read({ index, region }: PlacedBar, offset: bigint, width: number): Uint8Array | undefined {
    const area = this.#emulatedAt(index, offset);
    if (area !== undefined) return area.read(offset - area.range.start, width);
    // Past the end of a BAR whose length is no power of two the device has nothing.
    if (offset + BigInt(width) > region.length) return undefined;
    if (width < WIDEST) return region.read(offset, width);
    const bytes = new Uint8Array(WIDEST);
    new DataView(bytes.buffer).setBigUint64(0, region.read64(offset), true);
    return bytes;
  }

  #range(gpa: bigint, length: number): AddressRange {
    requireAccessLength(this.source.device, length);
    return AddressRange.of(gpa, BigInt(length)); // throws for what is not an address
  }

  #event(
    access: PciFaultEvent['access'],
    { index }: PlacedBar,
    offset: bigint,
    length: number,
  ): Omit<PciFaultEvent, 'error'> {
    return { ...this.source, access, bar: index, offset, length };
  }

  #emulatedAt(bar: number, offset: bigint): EmulatedArea | undefined {
    return this.#emulated.find((area) => area.bar === bar && area.range.contains(offset));
  }
}

function writeRegion({ index, region }: PlacedBar, offset: bigint, bytes: Uint8Array): void {
  // As hardware drops it. VFIO refuses writes to the ROM.
  if (index === ROM_INDEX || offset + BigInt(bytes.length) > region.length) return undefined;
  if (bytes.length < WIDEST) return region.write(offset, bytes);
  return region.write64(offset, new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
}

/**
 * Those accesses of a guest that fall into a BAR. A BAR begins and ends at a multiple of 16, so that none crosses its
 * end.
 */
function* pieces(
  bars: readonly PlacedBar[],
  range: AddressRange,
): Generator<{ readonly bar: PlacedBar; readonly offset: bigint; readonly at: number; readonly width: number }> {
  for (const [at, width] of alignedAccesses(range.start, Number(range.length), WIDEST)) {
    const start = range.start + BigInt(at);
    const bar = bars.find((one) => one.range.contains(start));
    if (bar !== undefined) yield { bar, offset: start - bar.range.start, at, width };
  }
}
