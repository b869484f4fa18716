/**
 * Dirty tracking over all address spaces of a container manager.
 */
import { setImmediate } from 'node:timers/promises';
import { AddressRange, requireAligned } from '../address-range.ts';
import { DirtyPages, type DirtyTracker } from '../dma/dirty-pages.ts';
import { PageSet } from '../dma/page-set.ts';
import { PeerDmaError } from '../errors.ts';
import type { AddressSpace } from '../guest/address-space.ts';
import { hostPageSize } from '../memory/page-size.ts';

/** Bytes of RAM whose pages are copied at once: 256 KiB of a bitmap. */
const PIECE = 1n << 33n;

/** A log of which pages of RAM the devices of a {@link VfioContainerManager} write, from its start to its stop. */
export class DirtyTracking {
  readonly #space: AddressSpace;
  readonly #trackers = new Set<DirtyTracker>();
  readonly #onStop: () => void;
  readonly #pageSize = hostPageSize();
  /** What was read and not told yet: of mappings that reach out of what was asked for, or were unmapped. */
  readonly #untold = new PageSet(this.#pageSize);
  #stopped = false;

  /** @internal */
  constructor(space: AddressSpace, onStop: () => void) {
    this.#space = space;
    this.#onStop = onStop;
  }

  /** Logs in these address spaces too. If it throws, in none of those that are new. @internal */
  async join(trackers: readonly DirtyTracker[]): Promise<void> {
    const started: DirtyTracker[] = [];
    try {
      for (const tracker of trackers) {
        if (this.#trackers.has(tracker)) continue;
        await tracker.startDirtyTracking((pages) => this.#untold.add(pages));
        started.push(tracker);
        this.#trackers.add(tracker);
      }
    } catch (error) {
      for (const tracker of started) {
        this.#trackers.delete(tracker);
        try {
          await tracker.stopDirtyTracking();
        } catch {
          // It logs for nobody; what kept the other from starting is what is to be told.
        }
      }
      throw error;
    }
  }

  /** Of the address spaces, only these are left. @internal */
  keep(present: readonly DirtyTracker[]): void {
    for (const tracker of this.#trackers) if (!present.includes(tracker)) this.#trackers.delete(tracker);
  }

  /**
   * The pages of RAM in a range that devices have written, or may have, since they were asked for last. Each write is told once, by the
   * address it went to, also where that was unmapped meanwhile: as soon as there is RAM again. With the back end `type1` the kernel can't
   * see writes and says all that is mapped.
   *
   * @param range guest-physical addresses; whole pages
   * @throws {PeerDmaError} `ERR_UNALIGNED`; `ERR_UNSUPPORTED`, `ERR_OUT_OF_RANGE` for a range or a mapping of 2^31
   * pages or more, `ERR_SYSTEM` with what the kernel said; `ERR_CLOSED` after the stop
   */
  readDirty(range: AddressRange): Promise<DirtyPages> {
    return this.#space.betweenChanges(async () => {
      if (this.#stopped)
        throw new PeerDmaError('ERR_CLOSED', 'dirty pages are not being tracked any more: start it anew');
      requireAligned(range, this.#pageSize, 'what is read of dirty pages,');
      const told = new DirtyPages(range, this.#pageSize);
      const ram = this.#space.map.flat.overlapping(range).filter(({ kind }) => kind === 'ram');
      for (const tracker of this.#trackers) {
        // Mapping by mapping: type1 refuses to tell of parts.
        for (const sub of ram) {
          const pages = await tracker.readDirty(sub.range);
          await inPieces(sub.range, (piece) => this.#untold.add(pages, piece));
        }
      }
      // Of what is hidden just now it is told once that is seen again.
      for (const { range: part } of ram) {
        const start = part.start > range.start ? part.start : range.start;
        const end = part.end < range.end ? part.end : range.end;
        await inPieces(AddressRange.between(start, end), (piece) => this.#untold.moveTo(told, piece));
      }
      return told;
    });
  }

  /**
   * Ends it. Idempotent.
   *
   * @throws {PeerDmaError} `ERR_SYSTEM` where the kernel goes on logging in an address space, which it can be told again
   */
  async stop(): Promise<void> {
    await this.#space.betweenChanges(async () => {
      if (this.#stopped) return;
      for (const tracker of this.#trackers) {
        await tracker.stopDirtyTracking();
        this.#trackers.delete(tracker);
      }
      this.#stopped = true;
      this.#onStop();
    });
  }

  /** As {@link DirtyTracking.stop}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** Acts on each piece of a range, and gives the event loop its turn between two of them. */
async function inPieces({ start, end }: AddressRange, act: (piece: AddressRange) => void): Promise<void> {
  for (let from = start; from < end;) {
    if (from > start) await setImmediate();
    const next = from - (from % PIECE) + PIECE;
    const to = next < end ? next : end;
    act(AddressRange.between(from, to));
    from = to;
  }
}
