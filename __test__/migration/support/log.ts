/** A fake log of writes, with the processors of a machine. */
import { DirtyPages } from '../../../ts/dma/dirty-pages.ts';
import type { DirtyTracking } from '../../../ts/guest/dirty-tracking.ts';
import { PAGE, pages } from '../../support/pages.ts';

/** A fake log of an IOMMU or of processors. */
export class Log {
  readonly calls: string[];
  state = 'running';
  #written: readonly number[] = [];

  constructor(calls: string[] = []) {
    this.calls = calls;
  }

  write(...written: readonly number[]): void {
    this.#written = written;
  }

  async pause(): Promise<void> {
    this.calls.push('pause');
    this.state = 'paused';
  }

  resume(): void {
    this.calls.push('resume');
    this.state = 'running';
  }

  async startDirtyTracking(): Promise<DirtyTracking> {
    this.calls.push('start');
    const tracking: Pick<DirtyTracking, 'readDirty' | 'stop'> = {
      readDirty: async (range) => {
        const dirty = new DirtyPages(range, PAGE);
        for (const page of this.#written) {
          if (range.contains(pages(page, 1)))
            dirty.bitmap[page >> 6] = (dirty.bitmap[page >> 6] ?? 0n) | (1n << BigInt(page & 63));
        }
        this.#written = [];
        return dirty;
      },
      stop: async () => void this.calls.push('stop'),
    };
    return tracking as DirtyTracking;
  }
}
