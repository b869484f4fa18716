/**
 * Regions with a fixed address.
 */
import type { AddressRange } from '../address-range.ts';
import { INSPECT, objectText } from '../object-text.ts';
import { sizeOf } from '../size.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import { type MapToGuestOptions, MemoryRegion, changeMemory } from './memory-change.ts';
import { stateText } from './region-state.ts';

/** A range of guest memory with a fixed address. */
export class Region extends MemoryRegion {
  /** Guest-physical addresses. */
  readonly range: AddressRange;
  readonly #space: GuestAddressSpace;
  readonly #id: number;

  /** @internal */
  constructor(space: GuestAddressSpace, id: number, name: string, range: AddressRange) {
    super({ space, id, range }, name, range.length);
    this.#space = space;
    this.#id = id;
    this.range = range;
  }

  /**
   * Makes the region active, or changes the writability of an active region.
   *
   * @throws {PeerDmaError} `ERR_RANGE_QUARANTINED`, `ERR_REGION_REMOVED`, `ERR_CLOSED`; the error of a target.
   * Nothing has changed then, and the call can be repeated
   */
  async mapToGuest(options: MapToGuestOptions = {}): Promise<void> {
    await changeMemory(this.#space, (change) => change.mapToGuest(this, options));
  }

  /**
   * Removes the region with its mappings. Idempotent, also after guest memory is closed.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`, `ERR_RANGE_QUARANTINED`; the error of a target that cannot map the
   * memory behind the region. Nothing has changed then, and the call can be repeated
   */
  async remove(): Promise<void> {
    await this.#space.removeRegion(this.#id);
  }

  /** As {@link Region.remove}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.remove();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'Region', () => [
      `"${this.name}" ${this.range} (${sizeOf(this.range.length)})`,
      stateText(this.#space.map.region(this.#id)),
    ]);
  }
}
