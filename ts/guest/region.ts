/**
 * Regions with a fixed address.
 */
import type { AddressRange } from '../address-range.ts';
import type { AddressSpace } from './address-space.ts';
import { MemoryRegion, changeMemory } from './memory-change.ts';

/** A range of guest memory with a fixed address. */
export class Region extends MemoryRegion {
  /** Guest-physical addresses. */
  readonly range: AddressRange;
  readonly #space: AddressSpace;

  /** @internal */
  constructor(space: AddressSpace, id: number, name: string, range: AddressRange) {
    super({ space, id, range }, name, range.length);
    this.#space = space;
    this.range = range;
  }

  /**
   * Makes the region active, or changes the writability of an active region.
   *
   * @param options.writable `false` makes every mapping in it read-only for devices. Default: true
   * @throws {PeerDmaError} `ERR_RANGE_QUARANTINED`, `ERR_REGION_REMOVED`, `ERR_CLOSED`; the error of a target.
   * Nothing has changed then, and the call can be repeated
   */
  async mapToGuest(options: { writable?: boolean } = {}): Promise<void> {
    await changeMemory(this.#space, (change) => change.mapToGuest(this, options));
  }

  /** Removes the region with its mappings. Throws as {@link Region.mapToGuest} does. */
  async remove(): Promise<void> {
    await changeMemory(this.#space, (change) => change.remove(this));
  }
}
