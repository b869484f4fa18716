/**
 * The guest addresses that BARs decode, sorted.
 *
 * A guest can place BARs over each other. Each address belongs to one owner: that of the highest precedence. Since the
 * visible parts do not overlap, a lookup takes O(log n), and so does a change of a BAR that overlaps none.
 */
import { AddressRange } from '../../address-range.ts';
import { IntervalMap } from '../../interval-map.ts';

/** Owner of addresses: a function. @internal */
export interface BarOwner {
  /** Of two owners of an address, the one with the lower number decodes it. */
  readonly order: number;
}

/** Addresses that one owner decodes. @internal */
export interface BarSegment<O extends BarOwner> {
  readonly range: AddressRange;
  readonly owner: O;
}

/** @internal */
export class BarIndex<O extends BarOwner> {
  readonly #visible: IntervalMap<BarSegment<O>>;
  readonly #ranges = new Map<O, readonly AddressRange[]>();
  /** Owners that may have a range below that of another owner. */
  readonly #hidden = new Set<O>();

  constructor(visible = new IntervalMap<BarSegment<O>>()) {
    this.#visible = visible;
  }

  /** Replaces the ranges of an owner. */
  set(owner: O, ranges: readonly AddressRange[]): void {
    const before = this.#ranges.get(owner) ?? [];
    for (const range of before) {
      for (const segment of this.#visible.overlapping(range)) {
        if (segment.owner === owner) this.#visible.remove(segment);
      }
    }
    if (ranges.length === 0) this.#ranges.delete(owner);
    else this.#ranges.set(owner, [...ranges]);
    if (before.length > 0) this.#uncover();
    for (const range of ranges) this.#place(owner, range);
  }

  /** The addresses around one that have the same owner. */
  at(gpa: bigint): BarSegment<O> | undefined {
    return this.#visible.at(gpa);
  }

  /** All that share an address with a range, in order. */
  overlapping(range: AddressRange): BarSegment<O>[] {
    return this.#visible.overlapping(range);
  }

  /** Places hidden ranges again, after others were removed. */
  #uncover(): void {
    const owners = [...this.#hidden];
    this.#hidden.clear();
    for (const owner of owners) {
      for (const range of this.#ranges.get(owner) ?? []) this.#place(owner, range);
    }
  }

  /** Adds the visible parts of a range, and hides what it covers. Does nothing for parts that are there already. */
  #place(owner: O, range: AddressRange): void {
    let next = range.start;
    for (const segment of this.#visible.overlapping(range)) {
      if (segment.owner !== owner && segment.owner.order > owner.order) {
        this.#cut(segment, range);
        continue;
      }
      if (segment.owner !== owner) this.#hidden.add(owner);
      this.#insert(owner, next, segment.range.start);
      next = segment.range.end;
    }
    this.#insert(owner, next, range.end);
  }

  /** Removes the part of a segment that a range covers. */
  #cut(segment: BarSegment<O>, { start, end }: AddressRange): void {
    this.#visible.remove(segment);
    this.#hidden.add(segment.owner);
    this.#insert(segment.owner, segment.range.start, start);
    this.#insert(segment.owner, end, segment.range.end);
  }

  #insert(owner: O, start: bigint, end: bigint): void {
    if (start < end) this.#visible.insert({ owner, range: AddressRange.between(start, end) });
  }
}
