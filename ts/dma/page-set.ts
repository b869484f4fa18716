/**
 * Any number of pages anywhere, kept by what there is of them.
 */
import { AddressRange } from '../address-range.ts';
import { DirtyPages } from './dirty-pages.ts';

/** Pages of a chunk: their bits are 2 KiB. */
const CHUNK_PAGES = 1n << 14n;

/** @internal */
export class PageSet {
  readonly #pageSize: bigint;
  /** By their number; those that are there have pages in them. */
  readonly #chunks = new Map<bigint, DirtyPages>();

  constructor(pageSize: bigint) {
    this.#pageSize = pageSize;
  }

  add(pages: DirtyPages): void {
    for (const [number, range] of this.#chunksOf(pages.range)) {
      const chunk = this.#chunks.get(number) ?? new DirtyPages(range, this.#pageSize);
      chunk.add(pages);
      if (!chunk.isEmpty) this.#chunks.set(number, chunk);
    }
  }

  /** Takes out those within a range. */
  take(range: AddressRange): DirtyPages {
    const taken = new DirtyPages(range, this.#pageSize);
    for (const [number] of this.#chunksOf(range)) {
      const chunk = this.#chunks.get(number);
      if (chunk === undefined) continue;
      taken.add(chunk);
      chunk.remove(range);
      if (chunk.isEmpty) this.#chunks.delete(number);
    }
    return taken;
  }

  *#chunksOf({ start, end }: AddressRange): Generator<readonly [number: bigint, range: AddressRange]> {
    const length = CHUNK_PAGES * this.#pageSize;
    for (let number = start / length; number * length < end; number++) {
      yield [number, AddressRange.of(number * length, length)];
    }
  }
}
