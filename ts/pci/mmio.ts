/** Guest accesses to BARs that trap to the VMM: dispatches each to the device or to an emulated area. */
import { AddressRange } from '../address-range.ts';
import { requireBytes } from '../arguments.ts';
import { requireBigint } from '../number-types.ts';
import { alignedAccesses, requireAccessLength } from './aligned-accesses.ts';
import { ROM_INDEX } from './config/bar-registers.ts';
import type { DeviceRegion } from './physical-function.ts';
import { type Pending, inTurn } from './pending.ts';
import { type PciFaultEvent, tryAccess, allOnes } from './pci-fault.ts';

/** A part of a BAR whose pages are not mapped. @internal */
export interface TrappedPart {
  readonly bar: number;
  /** Offsets within the BAR. */
  readonly range: AddressRange;
  /** Why its pages are not mapped, for people. */
  readonly reason: string;
}

/** An emulated part of a BAR, such as the MSI-X table. Offsets are relative to its start. @internal */
export interface EmulatedArea extends TrappedPart {
  /** Default: reads the device. */
  read?(offset: bigint, length: number): Uint8Array;
  /** Default: writes the device. */
  write?(offset: bigint, bytes: Uint8Array): Pending<void>;
}

/** A BAR at its guest address. @internal */
export interface PlacedBar {
  readonly index: number;
  readonly range: AddressRange;
  readonly region: DeviceRegion;
}

/** Bytes of the widest access to memory space. */
const WIDEST = 8;

/** @internal */
export class Mmio {
  /** For events. */
  readonly source: Pick<PciFaultEvent, 'memory' | 'bdf'>;
  readonly #emulated: readonly EmulatedArea[];

  /** @param emulated the first one that contains an access takes it */
  constructor(source: Pick<PciFaultEvent, 'memory' | 'bdf'>, emulated: readonly EmulatedArea[]) {
    this.source = source;
    this.#emulated = emulated;
  }

  /** Reads all ones for bytes outside of every BAR, and if the device does not respond. */
  read(bars: Iterable<PlacedBar>, gpa: bigint, length: number): Uint8Array {
    const all = pieces([...bars], this.#range(gpa, length));
    const bytes = allOnes(length);
    for (const { bar, offset, at, width } of all) {
      const read = tryAccess(
        () => this.#event('BAR read', bar, offset, width),
        () => this.#read(bar, offset, width),
      );
      if (read !== undefined) bytes.set(read, at);
    }
    return bytes;
  }

  /**
   * Writes bytes, and drops those outside of every BAR or rejected by the device.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_SETUP` if an entry of the MSI-X table cannot be connected
   */
  write(bars: Iterable<PlacedBar>, gpa: bigint, bytes: Uint8Array): Pending<void> {
    const { length } = requireBytes(bytes);
    return inTurn(pieces([...bars], this.#range(gpa, length)), ({ bar, offset, at, width }) => {
      const part = bytes.subarray(at, at + width);
      const area = this.#emulatedAt(bar.index, offset, width);
      if (area?.write !== undefined) return area.write(offset - area.range.start, part);
      return tryAccess(
        () => this.#event('BAR write', bar, offset, width),
        () => writeRegion(bar, offset, part),
      );
    });
  }

  #read({ index, region }: PlacedBar, offset: bigint, width: number): Uint8Array | undefined {
    const area = this.#emulatedAt(index, offset, width);
    if (area?.read !== undefined) return area.read(offset - area.range.start, width);
    // The register of a BAR is a power of two; its region may be shorter.
    if (offset + BigInt(width) > region.length) return undefined;
    if (width < WIDEST) return region.read(offset, width);
    const bytes = new Uint8Array(WIDEST);
    new DataView(bytes.buffer).setBigUint64(0, region.read64(offset), true);
    return bytes;
  }

  #range(gpa: bigint, length: number): AddressRange {
    requireBigint(gpa, 'gpa', this.source.bdf);
    requireAccessLength(this.source.bdf, length);
    return AddressRange.of(gpa, BigInt(length)); // throws for an invalid address
  }

  #event(
    access: PciFaultEvent['access'],
    { index }: PlacedBar,
    offset: bigint,
    length: number,
  ): Omit<PciFaultEvent, 'error'> {
    return { ...this.source, access, bar: index, offset, length };
  }

  #emulatedAt(bar: number, offset: bigint, width: number): EmulatedArea | undefined {
    return this.#emulated.find(
      ({ bar: index, range }) => index === bar && range.start <= offset && offset + BigInt(width) <= range.end,
    );
  }
}

function writeRegion({ index, region }: PlacedBar, offset: bigint, bytes: Uint8Array): void {
  // Hardware drops these writes. VFIO rejects writes to the ROM.
  if (index === ROM_INDEX || offset + BigInt(bytes.length) > region.length) return undefined;
  if (bytes.length < WIDEST) return region.write(offset, bytes);
  return region.write64(offset, new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
}

/**
 * Yields the aligned accesses that fall into a BAR.
 *
 * A BAR begins and ends at a multiple of 16, so that no access crosses its end.
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
