/**
 * The window of a device's BAR: it has contents first, and an address while the guest maps it.
 */
import { AddressRange } from '../address-range.ts';
import { type DeviceAccessOptions, readDeviceAccess } from '../dma/device-access.ts';
import { INSPECT, objectText } from '../object-text.ts';
import { sizeOf } from '../size.ts';
import { valueText } from '../value-text.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import { type MapToGuestOptions, MemoryRegion, changeMemory } from './memory-change.ts';
import { newRegion, requirePlace } from './new-region.ts';
import { DEFAULT_PRIORITY, stateText } from './region-state.ts';

/** Options of {@link GuestMemory.newDeviceMemory}. */
export interface DeviceMemoryOptions extends DeviceAccessOptions {
  /** For errors, {@link GuestMemory.inspect} and events. Not unique. */
  readonly name: string;
  /** Bytes; whole pages. */
  readonly length: bigint;
}

/** Memory of a device that the guest places. It loses against RAM at the same address. */
export class DeviceMemory extends MemoryRegion {
  readonly #space: GuestAddressSpace;
  readonly #id: number;

  /** @internal */
  constructor(space: GuestAddressSpace, { name, length, ...options }: DeviceMemoryOptions) {
    const what = `device memory "${valueText(name)}"`;
    requirePlace(space, AddressRange.of(0n, length), what);
    const access = readDeviceAccess(options, what);
    const state = newRegion(space, { name, length, kind: 'device', priority: DEFAULT_PRIORITY.device, access });
    super({ space, id: state.id }, name, length);
    this.#space = space;
    this.#id = state.id;
    // Later calls queue behind this one. If it fails, they fail with `ERR_REGION_REMOVED`.
    space.change((draft) => draft.add(state)).catch(() => {});
  }

  /**
   * Places the window at a guest-physical address, or moves it there in one change. If the change fails, the window is
   * still at its old address.
   *
   * @param gpa a multiple of the page size
   * @throws {PeerDmaError} `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_RANGE_QUARANTINED`, `ERR_REGION_REMOVED`,
   * `ERR_CLOSED`
   */
  async mapToGuest(gpa: bigint, options: MapToGuestOptions = {}): Promise<void> {
    await changeMemory(this.#space, (change) => change.mapToGuest(this, gpa, options));
  }

  /**
   * Removes the window with its contents. Idempotent, also after guest memory is closed.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`, `ERR_RANGE_QUARANTINED`; the error of a target that cannot map the
   * memory behind the window. Nothing has changed then
   */
  async remove(): Promise<void> {
    await this.#space.removeRegion(this.#id);
  }

  /** As {@link DeviceMemory.remove}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.remove();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'DeviceMemory', () => {
      const region = this.#space.map.region(this.#id);
      const identity = `"${this.name}" (${sizeOf(this.length)})`;
      const range = region?.at === undefined ? [] : [`range: ${region.at}`];
      return [identity, ...range, stateText(region)];
    });
  }
}
