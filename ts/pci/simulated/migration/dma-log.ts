/** The log of a simulated device's DMA writes. */
import type { AddressRange } from '../../../address-range.ts';
import { PeerDmaError } from '../../../errors.ts';
import type { DeviceDmaLog } from '../../migration/device-migration.ts';

/** @internal */
export class SimulatedDmaLog implements DeviceDmaLog {
  readonly #bdf: string;
  #ranges: readonly AddressRange[] = [];
  /** Bytes in a page; `undefined` while it does not log. */
  #pageSize: bigint | undefined;
  /** Numbers of the pages that were written. */
  readonly #written = new Set<bigint>();

  constructor(bdf: string) {
    this.#bdf = bdf;
  }

  async start(ranges: readonly AddressRange[], pageSize: bigint): Promise<void> {
    if (this.#pageSize !== undefined) throw this.#error('starting it failed: it is on. Stop it first.');
    this.#ranges = [...ranges];
    this.#pageSize = pageSize;
  }

  async stop(): Promise<void> {
    this.#pageSize = undefined;
    this.#written.clear();
  }

  async read({ start, length }: AddressRange, pageSize: bigint): Promise<BigUint64Array> {
    if (pageSize !== this.#pageSize) throw this.#error('reading it failed: it is off, or has other pages.');
    const [first, count] = [start / pageSize, length / pageSize];
    const bitmap = new BigUint64Array(Number((count + 63n) / 64n));
    for (const page of this.#written) {
      const bit = Number(page - first);
      if (page < first || page >= first + count) continue;
      bitmap[Math.floor(bit / 64)] = (bitmap[Math.floor(bit / 64)] ?? 0n) | (1n << BigInt(bit % 64));
      this.#written.delete(page);
    }
    return bitmap;
  }

  /** Records a write of the device. */
  record({ start, end }: AddressRange): void {
    const pageSize = this.#pageSize;
    if (pageSize === undefined) return;
    for (let page = start / pageSize; page * pageSize < end; page++) {
      if (this.#ranges.some((range) => page * pageSize >= range.start && page * pageSize < range.end)) {
        this.#written.add(page);
      }
    }
  }

  #error(text: string): PeerDmaError {
    return new PeerDmaError('ERR_SYSTEM', `the log of DMA writes of ${this.#bdf}: ${text}`, { bdf: this.#bdf });
  }
}
