/**
 * The addresses that no active region has, as gaps.
 */
import { AddressRange } from '../address-range.ts';
import { type GapTree, gapsIn, insertGap, lowestPlace, removeGap } from './gap-tree.ts';

const ALL = AddressRange.between(0n, 1n << 64n);

/** @internal */
export class FreeSpace {
  #gaps: GapTree;

  constructor(gaps: GapTree = insertGap(undefined, ALL)) {
    this.#gaps = gaps;
  }

  /** A copy that shares everything until one of the two is changed. */
  clone(): FreeSpace {
    return new FreeSpace(this.#gaps);
  }

  /** The gaps that share an address with a range, in order of address. */
  gapsIn(range: AddressRange): AddressRange[] {
    return gapsIn(this.#gaps, range);
  }

  /**
   * The lowest free place.
   *
   * @param length bytes
   * @param alignment of its start, in bytes: a power of two
   * @param within the place lies within this range
   */
  lowest(length: bigint, alignment: bigint, within: AddressRange): AddressRange | undefined {
    return lowestPlace(this.#gaps, length, alignment.toString(2).length - 1, within);
  }

  /** Marks addresses as used; some may be used already. */
  take(range: AddressRange): void {
    for (const gap of this.gapsIn(range)) {
      this.#gaps = removeGap(this.#gaps, gap);
      this.#insert(gap.start, range.start);
      this.#insert(range.end, gap.end);
    }
  }

  /**
   * Frees addresses that are used throughout.
   *
   * @param kept the parts of them that stay used, in order of address
   */
  free(range: AddressRange, kept: readonly AddressRange[]): void {
    let { start } = range;
    for (const part of kept) {
      this.#free(start, part.start);
      start = part.end;
    }
    this.#free(start, range.end);
  }

  #free(start: bigint, end: bigint): void {
    if (start >= end) return;
    let [low, high] = [start, end];
    const adjoining = AddressRange.between(start > 0n ? start - 1n : start, end + 1n);
    for (const gap of this.gapsIn(adjoining)) {
      this.#gaps = removeGap(this.#gaps, gap);
      if (gap.start < low) low = gap.start;
      if (gap.end > high) high = gap.end;
    }
    this.#insert(low, high);
  }

  #insert(start: bigint, end: bigint): void {
    if (start < end) this.#gaps = insertGap(this.#gaps, AddressRange.between(start, end));
  }
}
