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
import type { Undo } from './undo.ts';

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
  /** Where they are memory in the guest; `undefined` while they are not. */
  mappedAt: bigint | undefined;
}

/** @internal */
export class BarWindows {
  readonly #device: string;
  readonly #memory: GuestMemory;
  readonly #windows: ReadonlyMap<number, BarWindow>;
  /** One past the last guest-physical address. */
  readonly #end: bigint;
  #addresses: BarAddresses = new Map();

  private constructor(device: string, memory: GuestMemory, windows: ReadonlyMap<number, BarWindow>) {
    this.#device = device;
    this.#memory = memory;
    this.#windows = windows;
    this.#end = 1n << BigInt(addressSpaceOf(memory).width);
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
        const fits = bar.length <= made.#end;
        const window = areas.length > 0 && fits ? memory.newDeviceMemory({ name, length: bar.length }) : undefined;
        windows.set(bar.index, { bar, region, areas, memory: window, mappedAt: undefined });
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
    if (gpa + bar.length > this.#end) {
      return `it ${beyondWidth(AddressRange.of(gpa, bar.length), addressSpaceOf(this.#memory).width)}`;
    }
    return memory === undefined ? 'the host lets none of it be mapped, but for pages that are emulated' : undefined;
  }

  /**
   * Takes the windows to where the BARs are to be, in one change of guest memory, in which all that goes, goes before
   * anything comes. Windows whose address stays are not touched.
   *
   * @returns takes them back
   * @throws {PeerDmaError} as {@link DeviceMemory.mapToGuest}: all are where they were then
   */
  async place(addresses: BarAddresses): Promise<Undo> {
    const moves: { window: BarWindow; memory: DeviceMemory; to: bigint | undefined }[] = [];
    for (const [index, window] of this.#windows) {
      const { memory, mappedAt } = window;
      const gpa = addresses.get(index);
      if (memory === undefined || gpa === mappedAt) continue;
      const to = gpa === undefined || this.trapped(window, gpa) !== undefined ? undefined : gpa;
      if (to !== mappedAt) moves.push({ window, memory, to });
    }
    if (moves.length > 0) {
      const space = addressSpaceOf(this.#memory);
      if (space.closed && moves.every(({ to }) => to === undefined)) {
        await this.#memory.close(); // which takes them, and everything else, away
      } else {
        await space.change((draft) => {
          for (const { memory, to } of moves) {
            if (to === undefined) memory.unplaceIn(draft);
            else memory.placeIn(draft, to);
          }
        });
      }
      for (const { window, to } of moves) window.mappedAt = to;
    }
    const before = this.#addresses;
    this.#addresses = addresses;
    publishBars(this.#device, before, this.#memory, this);
    return () => this.place(before);
  }

  /** Takes the windows out of guest memory for good. */
  async close(): Promise<void> {
    await this.place(new Map());
    for (const { memory } of this.#windows.values()) await memory?.close();
  }
}
