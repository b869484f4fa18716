/** The pages of RAM that a migration still has to copy, from all logs of writes as one set. */
import { AddressRange, requireAligned, requireRange } from '../address-range.ts';
import { DirtyPages } from '../dma/dirty-pages.ts';
import { PageSet } from '../dma/page-set.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { asError } from '../errors.ts';
import type { DirtyTracking } from '../guest/dirty-tracking.ts';
import type { GuestAddressSpace } from '../guest/guest-address-space.ts';
import { hostPageSize } from '../memory/page-size.ts';

/** Most bytes of RAM whose pages are listed at once: 256 KiB of a bitmap. */
const PIECE = 1n << 33n;

/** @internal */
export class DirtyRam {
  readonly #space: GuestAddressSpace;
  #logs: readonly DirtyTracking[];
  readonly #pageSize = hostPageSize();
  readonly #pending = new PageSet(this.#pageSize);
  /** Mappings whose pages were all added once. A mapping that is replaced is another object. */
  readonly #known = new WeakSet<SubMapping>();

  /** @param logs each of them logs already */
  constructor(space: GuestAddressSpace, logs: readonly DirtyTracking[]) {
    this.#space = space;
    this.#logs = logs;
  }

  /** Adds the pages of a range, which the caller wrote. @throws {PeerDmaError} `ERR_UNALIGNED` */
  add(range: AddressRange): void {
    requireRange(range);
    requireAligned(range, this.#pageSize, 'the range of dirty pages');
    for (const piece of piecesOf(range)) this.#pending.add(DirtyPages.all(piece, this.#pageSize));
  }

  /** Adds the pages that were written since the last call, and those of new RAM. */
  async collect(): Promise<void> {
    for (const { range } of this.#ram()) {
      for (const log of this.#logs) {
        const dirty = await log.readDirty(range);
        for (const piece of piecesOf(range)) this.#pending.add(dirty, piece);
      }
    }
    for (const sub of this.#ram()) {
      if (this.#known.has(sub)) continue;
      this.add(sub.range);
      this.#known.add(sub);
    }
  }

  /** Number of bytes to copy. */
  get bytes(): bigint {
    let pages = 0;
    for (const dirty of this.#lists()) pages += dirty.count;
    return BigInt(pages) * this.#pageSize;
  }

  /**
   * Yields the ranges to copy, each once, with at most `limit` bytes. A range that was yielded counts as copied.
   *
   * They are RAM when they are yielded: what was unmapped since is left out. If it is mapped again, it is
   * new RAM.
   */
  *take(limit: bigint): Generator<AddressRange> {
    for (const dirty of this.#lists()) {
      for (const { start, end } of dirty.ranges()) {
        for (let at = start; at < end; at += limit) {
          const part = AddressRange.between(at, at + limit < end ? at + limit : end);
          dirty.remove(part);
          for (const sub of this.#space.map.flat.overlapping(part))
            if (sub.kind === 'ram') yield shared(sub.range, part);
        }
      }
    }
  }

  /** Ends the logs. Another call tries those again that could not be stopped. @returns their errors */
  async stop(): Promise<Error[]> {
    const results = await Promise.allSettled(this.#logs.map((log) => log.stop()));
    this.#logs = this.#logs.filter((_, index) => results[index]?.status === 'rejected');
    return results.flatMap((result) => (result.status === 'rejected' ? asError(result.reason) : []));
  }

  /** Yields the pages piece by piece. Those that are left in a list after its turn stay in the set. */
  *#lists(): Generator<DirtyPages> {
    for (const { range } of this.#ram()) {
      for (const piece of piecesOf(range)) {
        const dirty = new DirtyPages(piece, this.#pageSize);
        this.#pending.moveTo(dirty, piece);
        try {
          yield dirty;
        } finally {
          this.#pending.add(dirty);
        }
      }
    }
  }

  #ram(): readonly SubMapping[] {
    return this.#space.map.flat.values().filter(({ kind }) => kind === 'ram');
  }
}

function shared(a: AddressRange, b: AddressRange): AddressRange {
  return AddressRange.between(a.start > b.start ? a.start : b.start, a.end < b.end ? a.end : b.end);
}

/** Cuts a range into parts whose pages can be listed at once. @internal */
export function* piecesOf({ start, end }: AddressRange): Generator<AddressRange> {
  for (let at = start; at < end; at += PIECE) yield AddressRange.between(at, at + PIECE < end ? at + PIECE : end);
}
