/**
 * The BARs of one device as windows of guest memory: where each is now, and how they get to where the guest wants them.
 */
import { AddressRange } from '../address-range.ts';
import { beyondWidth } from '../guest/address-width.ts';
import type { DeviceMemory } from '../guest/device-memory.ts';
import { type GuestMemory, addressSpaceOf } from '../guest/guest-memory.ts';
import { hostPageSize } from '../memory/page-size.ts';
import { publishBars } from './bar-status.ts';
import type { Bar } from './config/config-space.ts';
import { mappableAreas } from './mappable-areas.ts';
import type { DeviceRegion } from './physical-function.ts';

/** Guest addresses of the BARs that decode, by their number. @internal */
export type BarAddresses = ReadonlyMap<number, bigint>;

/** A BAR and what there is of it. @internal */
export interface BarWindow {
  readonly bar: Bar;
  readonly region: DeviceRegion;
  /** The parts that are memory in the guest, as offsets. */
  readonly areas: readonly AddressRange[];
  /** Shows them; `undefined` where there are none. */
  readonly memory: DeviceMemory | undefined;
}

/** @internal */
export class BarWindows {
  readonly #device: string;
  readonly #memory: GuestMemory;
  readonly #windows: ReadonlyMap<number, BarWindow>;
  #addresses: BarAddresses = new Map();

  private constructor(device: string, memory: GuestMemory, windows: ReadonlyMap<number, BarWindow>) {
    this.#device = device;
    this.#memory = memory;
    this.#windows = windows;
  }

  /**
   * Prepares the windows, without addresses.
   *
   * @param emulated offsets of what is emulated of each BAR
   * @throws {PeerDmaError} what {@link DeviceMemory.map} says; nothing is left then
   */
  static async create(
    device: string,
    memory: GuestMemory,
    bars: readonly (readonly [Bar, DeviceRegion])[],
    emulated: (bar: number) => readonly AddressRange[],
  ): Promise<BarWindows> {
    const windows = new Map<number, BarWindow>();
    const made = new BarWindows(device, memory, windows);
    try {
      for (const [bar, region] of bars) {
        const areas = mappableAreas(region, emulated(bar.index), hostPageSize());
        const name = `BAR ${bar.index} of ${device}`;
        // A BAR larger than the guest's address space is trapped wherever the guest places it.
        const fits = bar.length <= 1n << BigInt(addressSpaceOf(memory).width);
        const window = areas.length > 0 && fits ? memory.newDeviceMemory({ name, length: bar.length }) : undefined;
        windows.set(bar.index, { bar, region, areas, memory: window });
        for (const { start, length } of areas) {
          await window?.map({ offset: start, length, backing: region.backing(start) });
        }
      }
    } catch (error) {
      await made.close();
      throw error;
    }
    return made;
  }

  get windows(): Iterable<BarWindow> {
    return this.#windows.values();
  }

  /** Where the BARs are now. */
  get addresses(): BarAddresses {
    return this.#addresses;
  }

  /** Why a BAR is not memory at an address of its own, all of it left to the VMM; `undefined` where it is. */
  trapped({ bar, memory }: BarWindow, gpa: bigint): string | undefined {
    const page = hostPageSize();
    if (bar.length < page) {
      const unaligned = gpa % page === 0n ? '' : ', and its guest address is no multiple of that';
      return `it has ${bar.length} bytes, less than a page of ${page}${unaligned}`;
    }
    const beyond = beyondWidth(AddressRange.of(gpa, bar.length), addressSpaceOf(this.#memory).width);
    if (beyond !== undefined) return `it ${beyond}`;
    return memory === undefined ? 'the host lets none of it be mapped, but for pages that are emulated' : undefined;
  }

  /**
   * Takes the windows to where the BARs are to be, in one change of guest memory, in which all that goes, goes before
   * anything comes. Windows whose address stays are not touched.
   *
   * @throws {PeerDmaError} as {@link DeviceMemory.mapToGuest}: all are where they were then
   */
  async place(addresses: BarAddresses): Promise<void> {
    const moves: [DeviceMemory, bigint | undefined][] = [];
    for (const [index, window] of this.#windows) {
      const from = this.#shownAt(window, this.#addresses.get(index));
      const to = this.#shownAt(window, addresses.get(index));
      if (window.memory !== undefined && from !== to) moves.push([window.memory, to]);
    }
    const space = addressSpaceOf(this.#memory);
    if (space.closed && moves.every(([, gpa]) => gpa === undefined)) {
      await this.#memory.close(); // which takes them, and everything else, away
    } else if (moves.length > 0) {
      await space.change((draft) => {
        for (const [memory, gpa] of moves) {
          if (gpa === undefined) memory.unplaceIn(draft);
          else memory.placeIn(draft, gpa);
        }
      });
    }
    const before = this.#addresses;
    this.#addresses = addresses;
    publishBars(this.#device, before, this.#memory, this);
  }

  /** Takes the windows out of guest memory for good. */
  async close(): Promise<void> {
    await this.place(new Map());
    for (const { memory } of this.#windows.values()) await memory?.close();
  }

  #shownAt(window: BarWindow, gpa: bigint | undefined): bigint | undefined {
    return gpa === undefined || this.trapped(window, gpa) !== undefined ? undefined : gpa;
  }
}
