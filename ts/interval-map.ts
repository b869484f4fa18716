/**
 * Values with ranges that don't overlap, sorted: find, insert and remove take O(log n), a copy O(1).
 */
import { AddressRange } from './address-range.ts';
import { SortedTree } from './sorted-tree.ts';
import type { Slices } from './slices.ts';
import { type EntryChange, countBelow, treeChanges, valueGroups } from './tree-changes.ts';

function byAddress(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** A sorted set of values by their non-overlapping ranges. @internal */
export class IntervalMap<V extends { readonly range: AddressRange }> {
  readonly #tree: SortedTree<bigint, V>;

  constructor(tree: SortedTree<bigint, V> = new SortedTree<bigint, V>(undefined, byAddress)) {
    this.#tree = tree;
  }

  /** A copy that shares everything until one of the two is changed. */
  clone(): IntervalMap<V> {
    return new IntervalMap(this.#tree.clone());
  }

  get size(): number {
    return this.#tree.size;
  }

  /** The caller has made sure that the value overlaps none that is here. */
  insert(value: V): void {
    this.#tree.set(value.range.start, value);
  }

  remove(value: V): void {
    this.#tree.delete(value.range.start);
  }

  /** The value whose range begins at that address. */
  startingAt(address: bigint): V | undefined {
    return this.#tree.get(address);
  }

  /** The value that has the address. */
  at(address: bigint): V | undefined {
    const value = this.nearestBelow(address);
    return value !== undefined && value.range.end > address ? value : undefined;
  }

  /** The value with the highest start that is not above the address. */
  nearestBelow(address: bigint): V | undefined {
    return this.#tree.getPairOrNextLower(address)?.[1];
  }

  /** The value with the lowest start above the address. */
  nearestAbove(address: bigint): V | undefined {
    return this.#tree.nextHigherPair(address)?.[1];
  }

  /** The value with the lowest address among those that share an address with the range. */
  firstIn(range: AddressRange): V | undefined {
    const first = this.at(range.start) ?? this.nearestAbove(range.start);
    return first !== undefined && first.range.start < range.end ? first : undefined;
  }

  /** All that share an address with the range, in order. */
  overlapping(range: AddressRange): V[] {
    const found: V[] = [];
    const before = this.#tree.nextLowerPair(range.start);
    if (before !== undefined && before[1].range.end > range.start) found.push(before[1]);
    this.#tree.forRange(range.start, range.end, false, (_start, value) => {
      found.push(value);
    });
    return found;
  }

  /**
   * The values that together cover a range from its start on, each with the part of it that they cover.
   *
   * @returns the parts, and the first address that nothing covers, if there is one
   */
  cover(range: AddressRange): { parts: { value: V; part: AddressRange }[]; gap: bigint | undefined } {
    const parts: { value: V; part: AddressRange }[] = [];
    let next = range.start;
    for (const value of this.overlapping(range)) {
      if (value.range.start > next) break;
      const end = value.range.end < range.end ? value.range.end : range.end;
      parts.push({ value, part: AddressRange.between(next, end) });
      next = end;
    }
    return { parts, gap: next < range.end ? next : undefined };
  }

  /** How many begin below the address. */
  countBelow(address: bigint): number {
    return countBelow(this.#tree, address, byAddress);
  }

  /** Returns the changes since another version, in order of address. Values are compared by identity. */
  changesSince(before: IntervalMap<V>): EntryChange<V>[] {
    return treeChanges(before.#tree, this.#tree, byAddress);
  }

  /** All, in order of address. */
  values(): V[] {
    return this.#tree.valuesArray();
  }

  /** As {@link IntervalMap.values}, with turns of the event loop in between. The map must not change meanwhile. */
  async valuesInTurns(slices: Slices): Promise<V[]> {
    const values: V[] = [];
    await slices.forEach(valueGroups(this.#tree), (group) => values.push(...group));
    return values;
  }
}
