/** A device's own log of DMA writes, in the form of the logs of IOMMUs. */
import { AddressRange } from '../address-range.ts';
import { DirtyPages, type DirtyTracker } from '../dma/dirty-pages.ts';
import type { GuestAddressSpace } from '../guest/guest-address-space.ts';
import { hostPageSize } from '../memory/page-size.ts';
import type { DeviceDmaLog } from '../pci/migration/device-migration.ts';
import { piecesOf } from './dirty-ram.ts';

/** Devices log two ranges at least: those of RAM below and above the addresses of 32-bit devices. */
const HIGH = 1n << 32n;

/** @internal */
export class DeviceLogTracker implements DirtyTracker {
  readonly name: string;
  readonly #log: DeviceDmaLog;
  readonly #space: GuestAddressSpace;
  readonly #pageSize = hostPageSize();
  /** Empty while the device does not log. */
  #logged: readonly AddressRange[] = [];
  #onUnread: (pages: DirtyPages) => void = () => {};

  constructor(name: string, log: DeviceDmaLog, space: GuestAddressSpace) {
    this.name = name;
    this.#log = log;
    this.#space = space;
  }

  async startDirtyTracking(onUnread: (pages: DirtyPages) => void): Promise<void> {
    this.#onUnread = onUnread;
    await this.#start();
  }

  async stopDirtyTracking(): Promise<void> {
    if (this.#logged.length > 0) await this.#log.stop();
    this.#logged = [];
  }

  async readDirty(range: AddressRange): Promise<DirtyPages> {
    if (!this.#logged.some((logged) => logged.contains(range))) await this.#restart();
    else return new DirtyPages(range, this.#pageSize, await this.#log.read(range, this.#pageSize));
    return DirtyPages.all(range, this.#pageSize);
  }

  /** Logs RAM that was added outside of the log, too. All RAM counts as written then: the old log is lost. */
  async #restart(): Promise<void> {
    await this.stopDirtyTracking();
    for (const { range, kind } of this.#space.map.flat.values()) {
      if (kind !== 'ram') continue;
      for (const piece of piecesOf(range)) this.#onUnread(DirtyPages.all(piece, this.#pageSize));
    }
    await this.#start();
  }

  /** Logs the regions of RAM, with the blocks that are not plugged yet. Without RAM there is nothing to log. */
  async #start(): Promise<void> {
    const regions = this.#space.map.regions().filter(({ kind }) => kind === 'ram');
    const ram = regions.flatMap(({ at }) => at ?? []).toSorted((a, b) => (a.start < b.start ? -1 : 1));
    const parts = [ram.filter(({ start }) => start < HIGH), ram.filter(({ start }) => start >= HIGH)];
    const ranges = parts.flatMap((part): AddressRange | [] => {
      const [first] = part;
      if (first === undefined) return [];
      const end = part.reduce((last, range) => (range.end > last ? range.end : last), first.end);
      return AddressRange.between(first.start, end);
    });
    if (ranges.length > 0) await this.#log.start(ranges, this.#pageSize);
    this.#logged = ranges;
  }
}
