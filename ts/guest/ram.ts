/**
 * RAM that was added to guest memory.
 */
import type { AddressRange } from '../address-range.ts';
import { INSPECT, objectText } from '../object-text.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import { sizeOf } from '../size.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import { type RegionState, stateText } from './region-state.ts';

/** A range of RAM, by {@link GuestMemory.addRam}. */
export class Ram {
  /** For errors, {@link GuestMemory.inspect} and events. Not unique. */
  readonly name: string;
  /** Guest-physical addresses. */
  readonly range: AddressRange;
  readonly #space: GuestAddressSpace;
  readonly #id: number;

  /** @internal */
  constructor(key: typeof PACKAGE_KEY, space: GuestAddressSpace, { id, name }: RegionState, range: AddressRange) {
    requirePackageKey(key, 'GuestMemory.addRam()');
    this.#space = space;
    this.#id = id;
    this.name = name;
    this.range = range;
  }

  /**
   * Unmaps the RAM from all targets and removes it. Idempotent, also after guest memory is closed.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`, `ERR_RANGE_QUARANTINED`; the error of a target that cannot map the
   * memory behind the RAM. Nothing has changed then, and the call can be repeated
   */
  async remove(): Promise<void> {
    await this.#space.removeRegion(this.#id);
  }

  /** As {@link Ram.remove}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.remove();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'Ram', () => [
      `"${this.name}" ${this.range} (${sizeOf(this.range.length)})`,
      stateText(this.#space.map.region(this.#id)),
    ]);
  }
}
