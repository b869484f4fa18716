/**
 * The window of a device's BAR: it has contents first, and an address while the guest maps it.
 */
import { AddressRange } from '../address-range.ts';
import { valueText } from '../value-text.ts';
import type { AddressSpace } from './address-space.ts';
import { MemoryRegion, changeMemory } from './memory-change.ts';
import { newRegion, requirePlace } from './new-region.ts';
import { DEFAULT_PRIORITY } from './region-state.ts';

/** Memory of a device that the guest places. It loses against RAM at the same address. */
export class DeviceMemory extends MemoryRegion {
  readonly #space: AddressSpace;
  readonly #id: number;

  /** @internal */
  constructor(space: AddressSpace, name: string, length: bigint) {
    requirePlace(space, AddressRange.of(0n, length), `device memory "${valueText(name)}"`);
    const state = newRegion(space, { name, length, kind: 'device', priority: DEFAULT_PRIORITY.device });
    super({ space, id: state.id }, name, length);
    this.#space = space;
    this.#id = state.id;
    // Later calls queue behind this one. If it fails, they fail with `ERR_REGION_REMOVED`.
    space.change((draft) => draft.add(state)).catch(() => {});
  }

  /**
   * Places the window at a guest-physical address, or moves it there in one change: if that fails, the window is still
   * at its old address.
   *
   * @param gpa a multiple of the page size
   * @param options.writable `false` makes all of it read-only for devices. Default: true
   * @throws {PeerDmaError} `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_RANGE_QUARANTINED`, `ERR_REGION_REMOVED`,
   * `ERR_CLOSED`
   */
  async mapToGuest(gpa: bigint, options: { writable?: boolean } = {}): Promise<void> {
    await changeMemory(this.#space, (change) => change.mapToGuest(this, gpa, options));
  }

  /**
   * Removes the window with its contents. Idempotent, also after guest memory is closed.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`, `ERR_RANGE_QUARANTINED`; the error of a target that can't map the
   * memory behind the window. Nothing has changed then
   */
  async close(): Promise<void> {
    await this.#space.removeRegion(this.#id);
  }

  /** As {@link DeviceMemory.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
