/**
 * The addresses that any active region has, as stretches that neither overlap nor adjoin: as many as there are gaps, however
 * many regions there are.
 */
import { AddressRange } from '../address-range.ts';
import { IntervalMap } from '../interval-map.ts';

interface Stretch {
  readonly range: AddressRange;
}

/** @internal */
export class Occupied {
  readonly #stretches: IntervalMap<Stretch>;

  constructor(stretches: IntervalMap<Stretch> = new IntervalMap()) {
    this.#stretches = stretches;
  }

  clone(): Occupied {
    return new Occupied(this.#stretches.clone());
  }

  /** In order of address. */
  ranges(): AddressRange[] {
    return this.#stretches.values().map(({ range }) => range);
  }

  /** Adds addresses, some of which may be occupied. */
  add({ start, end }: AddressRange): void {
    const [from, to] = [start > 0n ? start - 1n : start, end + 1n]; // with those that adjoin
    let [low, high] = [start, end];
    for (const stretch of this.#stretches.overlapping(AddressRange.between(from, to))) {
      this.#stretches.remove(stretch);
      if (stretch.range.start < low) low = stretch.range.start;
      if (stretch.range.end > high) high = stretch.range.end;
    }
    this.#stretches.insert({ range: AddressRange.between(low, high) });
  }

  /**
   * Removes addresses, all of which are occupied.
   *
   * @param kept the parts of them that still are, in order of address
   */
  remove({ start, end }: AddressRange, kept: readonly AddressRange[]): void {
    const stretch = this.#stretches.at(start);
    if (stretch === undefined) return;
    this.#stretches.remove(stretch);
    const { range } = stretch;
    if (range.start < start) this.add(AddressRange.between(range.start, start));
    for (const part of kept) this.add(part);
    if (end < range.end) this.add(AddressRange.between(end, range.end));
  }
}
