/**
 * Adds regions to guest memory.
 */
import type { AddressRange } from '../address-range.ts';
import { readOptions } from '../arguments.ts';
import type { MemoryKind } from '../dma/target.ts';
import { valueText } from '../value-text.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import { newRegion, requireKind, requirePlace } from './new-region.ts';
import { Region } from './region.ts';
import { DEFAULT_PRIORITY } from './region-state.ts';

/** Options of {@link RegionManager.addRegion}. */
export interface RegionOptions {
  /** For errors, {@link GuestMemory.inspect} and events. Not unique. */
  readonly name: string;
  /** Guest-physical addresses; whole pages, within the address width. */
  readonly range: AddressRange;
  /** Any finite number. Default: {@link DEFAULT_PRIORITY} of the kind */
  readonly priority?: number;
  /** RAM, or a window onto a device. Default: `ram` */
  readonly kind?: MemoryKind;
}

/** Makes regions. */
export class RegionManager {
  readonly #space: GuestAddressSpace;

  /** @internal */
  constructor(space: GuestAddressSpace) {
    this.#space = space;
  }

  /**
   * Adds an inactive region without memory. Nothing is mapped to a target before {@link Region.mapToGuest}.
   *
   * If active regions overlap, the region of higher priority wins, and of equal priorities the older one. It wins in
   * all of its range, also at addresses without memory.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_CLOSED`
   */
  async addRegion(options: RegionOptions): Promise<Region> {
    const given = readOptions(options, ['name', 'range', 'priority', 'kind']);
    const { name, range, kind = 'ram' } = given;
    requireKind(kind);
    const { priority = DEFAULT_PRIORITY[kind] } = given;
    requirePlace(this.#space, range, `region "${valueText(name)}"`);
    const state = newRegion(this.#space, { name, length: range.length, kind, priority });
    await this.#space.change((draft) => draft.add(state));
    return new Region(this.#space, state.id, name, range);
  }
}
