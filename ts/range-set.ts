/**
 * A set of addresses, as ranges that do not overlap. Neighbours are not joined.
 */
import { AddressRange } from './address-range.ts';
import { IntervalMap } from './interval-map.ts';

interface Entry {
  readonly range: AddressRange;
}

/** @internal */
export class RangeSet {
  readonly #entries = new IntervalMap<Entry>();

  constructor(ranges: Iterable<AddressRange> = []) {
    for (const range of ranges) this.add(range);
  }

  /** Adds a range, which is one of the ranges of the set then. */
  add(range: AddressRange): void {
    this.delete(range);
    this.#entries.insert({ range });
  }

  /** Deletes a range. Ranges of the set that it cuts leave their pieces. */
  delete(range: AddressRange): void {
    for (const entry of this.#entries.overlapping(range)) {
      const { start, end } = entry.range;
      this.#entries.remove(entry);
      if (start < range.start) this.#entries.insert({ range: AddressRange.between(start, range.start) });
      if (range.end < end) this.#entries.insert({ range: AddressRange.between(range.end, end) });
    }
  }

  /** The ranges, in order. */
  values(): AddressRange[] {
    return this.#entries.values().map(({ range }) => range);
  }

  /** The addresses of these ranges that the set does not have. */
  missingFrom(ranges: readonly AddressRange[]): AddressRange[] {
    const missing = new RangeSet(ranges);
    for (const range of ranges) {
      for (const entry of this.#entries.overlapping(range)) missing.delete(entry.range);
    }
    return missing.values();
  }
}
