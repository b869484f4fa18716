/**
 * Dirty tracking over all address spaces of a container manager.
 */
import { type AddressRange, requireAligned } from '../address-range.ts';
import { DirtyPages, type DirtyTracker } from '../dma/dirty-pages.ts';
import type { AddressSpace } from '../guest/address-space.ts';
import { hostPageSize } from '../memory/page-size.ts';

/** A log of which pages of RAM the devices of a {@link VfioContainerManager} write, from its start to its stop. */
export class DirtyTracking {
  readonly #space: AddressSpace;
  readonly #trackers = new Set<DirtyTracker>();
  readonly #onStop: () => void;
  /** What was read of mappings that reach out of what was asked for. */
  #unread: DirtyPages[] = [];

  /** @internal */
  constructor(space: AddressSpace, onStop: () => void) {
    this.#space = space;
    this.#onStop = onStop;
  }

  /** Logs in these address spaces too. If it throws, in none of those that are new. @internal */
  join(trackers: readonly DirtyTracker[]): void {
    const started: DirtyTracker[] = [];
    try {
      for (const tracker of trackers) {
        if (this.#trackers.has(tracker)) continue;
        tracker.startDirtyTracking();
        started.push(tracker);
        this.#trackers.add(tracker);
      }
    } catch (error) {
      for (const tracker of started) {
        this.#trackers.delete(tracker);
        try {
          tracker.stopDirtyTracking();
        } catch {
          // It logs for nobody; what kept the other from starting is what is to be told.
        }
      }
      throw error;
    }
  }

  /** An address space is gone. @internal */
  forget(present: readonly DirtyTracker[]): void {
    for (const tracker of this.#trackers) if (!present.includes(tracker)) this.#trackers.delete(tracker);
  }

  /**
   * The pages of a range that devices have written, or may have, since they were asked for last: each write is told once.
   * What is no RAM is not among them. With the back end `type1` the kernel can't see writes and says all that is mapped.
   *
   * @param range guest-physical addresses; whole pages
   * @throws {PeerDmaError} `ERR_UNALIGNED`, `ERR_UNSUPPORTED`, `ERR_SYSTEM` with what the kernel said
   */
  readDirty(range: AddressRange): Promise<DirtyPages> {
    return this.#space.betweenChanges(() => {
      const page = hostPageSize();
      requireAligned(range, page, 'what is read of dirty pages,');
      const found = new DirtyPages(range, page);
      const ram = this.#space.map.flat.overlapping(range).filter(({ kind }) => kind === 'ram');
      for (const tracker of this.#trackers) {
        // Mapping by mapping: type1 refuses to tell of parts, iommufd of gaps.
        for (const sub of ram) this.#unread.push(tracker.readDirty(sub.range));
      }
      for (const pages of this.#unread) {
        if (!pages.range.overlaps(range)) continue;
        found.add(pages);
        pages.remove(range);
      }
      this.#unread = this.#unread.filter(({ bitmap }) => bitmap.some((word) => word !== 0n));
      return found;
    });
  }

  /** Ends it. Idempotent. */
  async stop(): Promise<void> {
    for (const tracker of this.#trackers) {
      tracker.stopDirtyTracking();
      this.#trackers.delete(tracker);
    }
    this.#onStop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
