/**
 * Dirty tracking over some of the targets of guest memory.
 */
import { setImmediate } from 'node:timers/promises';
import { AddressRange, requireAligned } from '../address-range.ts';
import { DirtyPages, type DirtyTracker } from '../dma/dirty-pages.ts';
import { PageSet } from '../dma/page-set.ts';
import { PeerDmaError, asError, throwAll } from '../errors.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import { hostPageSize } from '../memory/page-size.ts';

/** Bytes of RAM whose bits are copied in one turn of the event loop: 256 KiB of a bitmap. */
const PIECE = 1n << 33n;

/**
 * Logs the pages of RAM that devices or processors write, until it is stopped.
 *
 * They are the devices of a {@link VfioContainerManager}, or the processors of a virtual machine.
 */
export class DirtyTracking {
  readonly #space: GuestAddressSpace;
  readonly #trackers = new Set<DirtyTracker>();
  readonly #onStop: () => void;
  readonly #pageSize = hostPageSize();
  /**
   * Pages that were read from the kernel and not returned yet. They were outside of a requested range, or are unmapped
   * since.
   */
  readonly #unreported = new PageSet(this.#pageSize);
  #stopped = false;

  /** @internal */
  constructor(space: GuestAddressSpace, onStop: () => void) {
    this.#space = space;
    this.#onStop = onStop;
  }

  /** Starts to log in the new ones of these address spaces: in all or, if it throws, none. @internal */
  async join(trackers: readonly DirtyTracker[]): Promise<void> {
    const started: DirtyTracker[] = [];
    try {
      for (const tracker of trackers) {
        if (this.#trackers.has(tracker)) continue;
        await tracker.startDirtyTracking((pages) => this.#unreported.add(pages));
        started.push(tracker);
        this.#trackers.add(tracker);
      }
    } catch (error) {
      for (const tracker of started) {
        this.#trackers.delete(tracker);
        try {
          await tracker.stopDirtyTracking();
        } catch {
          // It goes on logging without a reader. The error to report is that of the failed start.
        }
      }
      throw error;
    }
  }

  /** Removes all address spaces except these. @internal */
  keep(present: readonly DirtyTracker[]): void {
    for (const tracker of this.#trackers) if (!present.includes(tracker)) this.#trackers.delete(tracker);
  }

  /**
   * Returns the pages of RAM in a range that may have been written since they were last returned.
   *
   * Each write is returned once, at the address that it went to. If the address was unmapped since, the write is
   * returned when RAM is mapped there again. With the back end `type1`, the kernel cannot detect writes and reports
   * everything that is mapped. After a read that failed, all pages that it did not return are returned.
   *
   * @param range guest-physical addresses; whole pages
   * @throws {PeerDmaError} `ERR_UNALIGNED`; `ERR_OUT_OF_RANGE` for a range or a mapping of 2^31 pages or more;
   * `ERR_UNSUPPORTED`, `ERR_SYSTEM` from the kernel; `ERR_CLOSED` after {@link DirtyTracking.stop}
   */
  readDirty(range: AddressRange): Promise<DirtyPages> {
    return this.#space.betweenChanges(async () => {
      if (this.#stopped) throw new PeerDmaError('ERR_CLOSED', 'dirty tracking is stopped. Start it again');
      requireAligned(range, this.#pageSize, 'the range of dirty pages');
      const dirty = new DirtyPages(range, this.#pageSize);
      const ram = this.#space.map.flat.overlapping(range).filter(({ kind }) => kind === 'ram');
      for (const tracker of this.#trackers) {
        // One call for each whole mapping: type1 rejects parts of mappings.
        for (const sub of ram) {
          const pages = await this.#read(tracker, sub.range);
          await inPieces(sub.range, (piece) => this.#unreported.add(pages, piece));
        }
      }
      // Pages whose address has no RAM now are returned when it has again.
      for (const { range: part } of ram) {
        const start = part.start > range.start ? part.start : range.start;
        const end = part.end < range.end ? part.end : range.end;
        await inPieces(AddressRange.between(start, end), (piece) => this.#unreported.moveTo(dirty, piece));
      }
      return dirty;
    });
  }

  /** Reads a log. A failed read may have cleared a part of it: all pages of the range are returned later. */
  async #read(tracker: DirtyTracker, range: AddressRange): Promise<DirtyPages> {
    try {
      return await tracker.readDirty(range);
    } catch (error) {
      await inPieces(range, (piece) => this.#unreported.add(DirtyPages.all(piece, this.#pageSize)));
      throw error;
    }
  }

  /**
   * Stops logging everywhere it can. Idempotent.
   *
   * @throws {PeerDmaError} `ERR_SYSTEM` if the kernel could not stop logging in an address space; call it again then,
   * for those that are left
   */
  async stop(): Promise<void> {
    await this.#space.betweenChanges(async () => {
      if (this.#stopped) return;
      const errors: Error[] = [];
      for (const tracker of this.#trackers) {
        try {
          await tracker.stopDirtyTracking();
        } catch (error) {
          if (!isClosed(error)) {
            errors.push(asError(error));
            continue;
          }
        }
        this.#trackers.delete(tracker);
      }
      throwAll(errors);
      this.#stopped = true;
      this.#onStop();
    });
  }

  /** As {@link DirtyTracking.stop}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** Whether the error is that of a closed device, whose log ended with it. */
function isClosed(error: unknown): boolean {
  return error instanceof PeerDmaError && error.code === 'ERR_CLOSED';
}

/** Runs `act` for each piece of a range, with a turn of the event loop between two pieces. */
async function inPieces({ start, end }: AddressRange, act: (piece: AddressRange) => void): Promise<void> {
  for (let from = start; from < end;) {
    if (from > start) await setImmediate();
    const next = from - (from % PIECE) + PIECE;
    const to = next < end ? next : end;
    act(AddressRange.between(from, to));
    from = to;
  }
}
