/** A device's own log of DMA writes, in the form of the logs of IOMMUs. */
import { AddressRange } from '../address-range.ts';
import { DirtyPages, type DirtyTracker } from '../dma/dirty-pages.ts';
import type { GuestAddressSpace } from '../guest/guest-address-space.ts';
import { hostPageSize } from '../memory/page-size.ts';
import type { DeviceDmaLog } from '../pci/migration/device-migration.ts';

/** Devices log two ranges at least: those of RAM below and above the addresses of 32-bit devices. */
const HIGH = 1n << 32n;

/** @internal */
export class DeviceLogTracker implements DirtyTracker {
  readonly name: string;
  readonly #log: DeviceDmaLog;
  readonly #space: GuestAddressSpace;
  readonly #pageSize = hostPageSize();
  #logged: readonly AddressRange[] = [];

  constructor(name: string, log: DeviceDmaLog, space: GuestAddressSpace) {
    this.name = name;
    this.#log = log;
    this.#space = space;
  }

  async startDirtyTracking(): Promise<void> {
    const ram = this.#space.map.flat.values().filter(({ kind }) => kind === 'ram');
    const parts = [ram.filter(({ range }) => range.start < HIGH), ram.filter(({ range }) => range.start >= HIGH)];
    const ranges = parts.flatMap((part): AddressRange | [] => {
      const [first, last] = [part[0], part.at(-1)];
      return first && last ? AddressRange.between(first.range.start, last.range.end) : [];
    });
    await this.#log.start(ranges, this.#pageSize);
    this.#logged = ranges;
  }

  stopDirtyTracking(): Promise<void> {
    return this.#log.stop();
  }

  /** RAM that was added later is outside of the log: all its pages count as written. */
  async readDirty(range: AddressRange): Promise<DirtyPages> {
    if (this.#logged.some((logged) => logged.contains(range))) {
      return new DirtyPages(range, this.#pageSize, await this.#log.read(range, this.#pageSize));
    }
    return DirtyPages.all(range, this.#pageSize);
  }
}
