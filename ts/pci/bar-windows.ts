/** The BARs of one device as windows of guest memory, and the changes of their addresses. */
import { AddressRange } from '../address-range.ts';
import { type DeviceAccess, optionsOf } from '../dma/device-access.ts';
import { beyondWidth } from '../guest/address-width.ts';
import type { DeviceMemory } from '../guest/device-memory.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { type Undo, transaction } from '../guest/transaction.ts';
import { changeMemory } from '../guest/memory-change.ts';
import { hostPageSize } from '../memory/page-size.ts';
import { Registration } from '../registration.ts';
import { publishBars } from './bar-status.ts';
import type { Bar } from './config/config-space.ts';
import { mappableAreas } from './mappable-areas.ts';
import type { TrappedPart } from './mmio.ts';
import type { DeviceRegion } from './physical-function.ts';

/** Guest addresses of the BARs that decode, by BAR number. @internal */
export type BarAddresses = ReadonlyMap<number, bigint>;

/** A BAR with its region and its window of guest memory. @internal */
export interface BarWindow {
  readonly bar: Bar;
  readonly region: DeviceRegion;
  /** The parts that can be mapped into guest memory, as offsets. */
  readonly areas: readonly AddressRange[];
  /** The parts whose pages trap to the VMM, with the reason. */
  readonly traps: readonly TrappedPart[];
  readonly access: DeviceAccess;
  /** The device memory that maps them; `undefined` if there are none. */
  readonly memory: DeviceMemory | undefined;
  /** The guest address at which they are mapped; `undefined` while they are not. */
  mappedAt: bigint | undefined;
}

/** @internal */
export class BarWindows {
  readonly #bdf: string;
  readonly #memory: GuestMemory;
  readonly #windows: ReadonlyMap<number, BarWindow>;
  /** One past the last guest-physical address. */
  readonly #end: bigint;
  /** Called after each change of the addresses. */
  readonly #watchers = new Set<() => void>();
  #addresses: BarAddresses = new Map();

  private constructor(bdf: string, memory: GuestMemory, windows: ReadonlyMap<number, BarWindow>) {
    this.#bdf = bdf;
    this.#memory = memory;
    this.#windows = windows;
    this.#end = 1n << BigInt(guestAddressSpaceOf(memory).width);
  }

  /**
   * Creates the windows, without addresses.
   *
   * @param of.trapped the parts of BARs whose pages are not mapped
   * @param of.accessOf returns the access policy of a BAR
   * @throws {PeerDmaError} as {@link MemoryRegion.addMapping}; all windows are removed then
   */
  static async create(
    bdf: string,
    memory: GuestMemory,
    bars: readonly (readonly [Bar, DeviceRegion])[],
    of: {
      readonly trapped: readonly TrappedPart[];
      accessOf(bar: number): DeviceAccess;
    },
  ): Promise<BarWindows> {
    const windows = new Map<number, BarWindow>();
    const made = new BarWindows(bdf, memory, windows);
    return transaction(async (undo) => {
      undo.push(() => made.close());
      for (const [bar, region] of bars) {
        const traps = of.trapped.filter((area) => area.bar === bar.index);
        const holes = traps.map(({ range }) => range);
        const areas = mappableAreas(region, holes, hostPageSize());
        const access = of.accessOf(bar.index);
        const options = { name: `BAR ${bar.index} of ${bdf}`, length: bar.length, ...optionsOf(access) };
        // A BAR larger than the guest's address space is trapped wherever the guest places it.
        const fits = bar.length <= made.#end;
        const window = areas.length > 0 && fits ? memory.newDeviceMemory(options) : undefined;
        windows.set(bar.index, { bar, region, areas, traps, access, memory: window, mappedAt: undefined });
        for (const area of areas) {
          await window?.addMapping({ range: area, backing: region.backing(area.start) });
        }
      }
      return made;
    });
  }

  get windows(): Iterable<BarWindow> {
    return this.#windows.values();
  }

  /** The current addresses of the BARs. */
  get addresses(): BarAddresses {
    return this.#addresses;
  }

  /** Returns why a whole BAR traps to the VMM at an address; `undefined` if it can be mapped. */
  trapReason({ bar, memory }: BarWindow, gpa: bigint): string | undefined {
    const page = hostPageSize();
    if (bar.length < page) {
      const unaligned = gpa % page === 0n ? '' : ', and its guest address is not a multiple of that';
      return `it has ${bar.length} bytes, less than a page of ${page}${unaligned}`;
    }
    if (gpa + bar.length > this.#end) {
      return `it ${beyondWidth(AddressRange.of(gpa, bar.length), guestAddressSpaceOf(this.#memory).width)}`;
    }
    return memory === undefined
      ? 'VFIO does not support mapping any of its pages, except for emulated ones'
      : undefined;
  }

  /**
   * Moves the windows to new BAR addresses, in one change of guest memory.
   *
   * All removals precede all additions, so that BARs can swap places. Windows whose address is unchanged are not
   * touched.
   *
   * @returns moves them back
   * @throws {PeerDmaError} as {@link DeviceMemory.mapToGuest}: no window has moved then
   */
  async moveTo(addresses: BarAddresses): Promise<Undo> {
    const moves: { window: BarWindow; memory: DeviceMemory; to: bigint | undefined }[] = [];
    for (const [index, window] of this.#windows) {
      const { memory, mappedAt } = window;
      const gpa = addresses.get(index);
      if (memory === undefined || gpa === mappedAt) continue;
      const to = gpa === undefined || this.trapReason(window, gpa) !== undefined ? undefined : gpa;
      if (to !== mappedAt) moves.push({ window, memory, to });
    }
    if (moves.length > 0) {
      const space = guestAddressSpaceOf(this.#memory);
      if (space.closed && moves.every(({ to }) => to === undefined)) {
        await this.#memory.close(); // removes the windows with all other regions
      } else {
        await changeMemory(space, (change) => {
          for (const { memory, to } of moves) {
            if (to === undefined) change.unmapFromGuest(memory);
            else change.mapToGuest(memory, to);
          }
        });
      }
      for (const { window, to } of moves) window.mappedAt = to;
    }
    const before = this.#addresses;
    this.#addresses = addresses;
    if (!sameAddresses(before, addresses)) this.#reportChange();
    publishBars(this.#bdf, before, this.#memory, this);
    return async () => {
      await this.moveTo(before);
    };
  }

  /** See {@link AssignedDevice.watchBars}. */
  watch(changed: () => void): Registration {
    const watcher = (): void => changed(); // one for each call, also if they have the same callback
    this.#watchers.add(watcher);
    return new Registration(() => void this.#watchers.delete(watcher));
  }

  #reportChange(): void {
    for (const watcher of this.#watchers) {
      try {
        watcher();
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  /** Removes the windows from guest memory. */
  async close(): Promise<void> {
    await this.moveTo(new Map());
    for (const { memory } of this.#windows.values()) await memory?.remove();
  }
}

function sameAddresses(a: BarAddresses, b: BarAddresses): boolean {
  return a.size === b.size && [...a].every(([bar, gpa]) => b.get(bar) === gpa);
}
