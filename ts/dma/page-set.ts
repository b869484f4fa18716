/**
 * A sparse set of pages. Memory is used for chunks that contain pages.
 */
import { AddressRange } from '../address-range.ts';
import { DirtyPages } from './dirty-pages.ts';

/** Pages in a chunk: 2 KiB of bits. */
const CHUNK_PAGES = 1n << 14n;

/** @internal */
export class PageSet {
  readonly #pageSize: bigint;
  /** By index. No chunk is empty. */
  readonly #chunks = new Map<bigint, DirtyPages>();

  constructor(pageSize: bigint) {
    this.#pageSize = pageSize;
  }

  /** Adds pages. @param within adds only the pages in this range; whole pages. Default: all */
  add(pages: DirtyPages, within: AddressRange = pages.range): void {
    for (const [number, range] of this.#chunksOf(within)) {
      if (!pages.hasIn(range)) continue;
      const chunk = this.#chunks.get(number) ?? new DirtyPages(range, this.#pageSize);
      chunk.add(pages, within);
      if (!chunk.isEmpty) this.#chunks.set(number, chunk);
    }
  }

  /** Moves the pages of a range to another set. */
  moveTo(others: DirtyPages, range: AddressRange): void {
    for (const [number] of this.#chunksOf(range)) {
      const chunk = this.#chunks.get(number);
      if (chunk === undefined) continue;
      others.add(chunk, range);
      chunk.remove(range);
      if (chunk.isEmpty) this.#chunks.delete(number);
    }
  }

  *#chunksOf({ start, end }: AddressRange): Generator<readonly [number: bigint, range: AddressRange]> {
    const length = CHUNK_PAGES * this.#pageSize;
    for (let number = start / length; number * length < end; number++) {
      yield [number, AddressRange.of(number * length, length)];
    }
  }
}
