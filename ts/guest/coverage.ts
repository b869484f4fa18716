/**
 * The active regions at each address, the winner first, in pieces that begin and end with regions. Finding the winners
 * of a range costs what lies in the range, however many regions exist.
 */
import { AddressRange } from '../address-range.ts';
import { IntervalMap } from '../interval-map.ts';
import { FreeSpace } from './free-space.ts';

interface Piece {
  readonly range: AddressRange;
  /** Region ids, winner first; never empty. */
  readonly regions: readonly number[];
}

/** A stretch in which one region wins. @internal */
export interface Run {
  readonly range: AddressRange;
  readonly region: number;
}

/** @internal */
export class Coverage {
  readonly #pieces: IntervalMap<Piece>;
  /** The addresses that no region has. */
  readonly free: FreeSpace;
  /** Whether the first of two regions wins over the second. */
  readonly #wins: (a: number, b: number) => boolean;

  constructor(
    wins: (a: number, b: number) => boolean,
    pieces: IntervalMap<Piece> = new IntervalMap(),
    free: FreeSpace = new FreeSpace(),
  ) {
    this.#wins = wins;
    this.#pieces = pieces;
    this.free = free;
  }

  clone(wins: (a: number, b: number) => boolean): Coverage {
    return new Coverage(wins, this.#pieces.clone(), this.free.clone());
  }

  /** Adds a region at a range. */
  cover(range: AddressRange, region: number): void {
    let free = range.start;
    for (const piece of this.#cut(range)) {
      if (free < piece.range.start) this.#put(free, piece.range.start, [region]);
      const at = piece.regions.findIndex((other) => this.#wins(region, other));
      const regions = piece.regions.slice();
      regions.splice(at === -1 ? regions.length : at, 0, region);
      this.#put(piece.range.start, piece.range.end, regions);
      free = piece.range.end;
    }
    if (free < range.end) this.#put(free, range.end, [region]);
    this.free.take(range);
  }

  /** Removes a region from its range. */
  uncover(range: AddressRange, region: number): void {
    for (const piece of this.#cut(range)) {
      const regions = piece.regions.filter((other) => other !== region);
      if (regions.length === 0) this.#pieces.remove(piece);
      else this.#put(piece.range.start, piece.range.end, regions);
    }
    this.#join(range);
    this.free.free(
      range,
      this.#pieces.overlapping(range).map((piece) => piece.range),
    );
  }

  /** The regions at an address, winner first. */
  at(address: bigint): readonly number[] {
    return this.#pieces.at(address)?.regions ?? [];
  }

  /**
   * The regions that end nearest below an address, and those that begin nearest above it. No region has the address.
   */
  around(address: bigint): number[] {
    const [below, above] = [this.#pieces.nearestBelow(address), this.#pieces.nearestAbove(address)];
    return [...(below?.regions ?? []), ...(above?.regions ?? [])];
  }

  /** The winners within a range, in order of address; neighbouring stretches of one region are one. */
  winners(range: AddressRange): Run[] {
    const runs: Run[] = [];
    for (const piece of this.#pieces.overlapping(range)) {
      const start = piece.range.start > range.start ? piece.range.start : range.start;
      const end = piece.range.end < range.end ? piece.range.end : range.end;
      const region = piece.regions[0] as number; // never empty
      const last = runs.at(-1);
      if (last !== undefined && last.region === region && last.range.end === start) {
        runs[runs.length - 1] = { range: AddressRange.between(last.range.start, end), region };
      } else {
        runs.push({ range: AddressRange.between(start, end), region });
      }
    }
    return runs;
  }

  /** Cuts pieces at both ends of the range; returns those within it. */
  #cut(range: AddressRange): Piece[] {
    for (const address of [range.start, range.end]) {
      const piece = this.#pieces.firstIn(AddressRange.between(address, address + 1n));
      if (piece === undefined || piece.range.start === address) continue;
      this.#put(piece.range.start, address, piece.regions);
      this.#put(address, piece.range.end, piece.regions);
    }
    return this.#pieces.overlapping(range);
  }

  /** Joins neighbouring pieces that have the same regions. */
  #join(range: AddressRange): void {
    const start = range.start > 0n ? range.start - 1n : 0n;
    let last: Piece | undefined;
    for (const piece of this.#pieces.overlapping(AddressRange.between(start, range.end + 1n))) {
      if (last !== undefined && last.range.end === piece.range.start && sameRegions(last, piece)) {
        this.#pieces.remove(piece);
        last = this.#put(last.range.start, piece.range.end, piece.regions);
      } else {
        last = piece;
      }
    }
  }

  #put(start: bigint, end: bigint, regions: readonly number[]): Piece {
    const piece = { range: AddressRange.between(start, end), regions };
    this.#pieces.insert(piece);
    return piece;
  }
}

function sameRegions(a: Piece, b: Piece): boolean {
  return a.regions.length === b.regions.length && a.regions.every((region, index) => region === b.regions[index]);
}
