/**
 * The window of a device's BAR: it has contents first, and an address while the guest maps it.
 */
import { AddressRange } from '../address-range.ts';
import { readOptions, requireBoolean } from '../arguments.ts';
import { INSPECT, objectText } from '../object-text.ts';
import { sizeOf } from '../size.ts';
import { requireBigint } from '../number-types.ts';
import { valueText } from '../value-text.ts';
import type { Backing } from '../memory/backing.ts';
import type { AddressSpace } from './address-space.ts';
import type { MemoryMapDraft } from './memory-map.ts';
import { addMapping, newRegion, requirePlace, requireWithin, stateText } from './region-manager.ts';
import { DEFAULT_PRIORITY } from './region-state.ts';

/** Memory of a device that the guest places. It loses against RAM at the same address. */
export class DeviceMemory {
  /** For errors, {@link GuestMemory.inspect} and events. Not unique. */
  readonly name: string;
  /** Bytes; whole pages. */
  readonly length: bigint;
  readonly #space: AddressSpace;
  readonly #id: number;

  /** @internal */
  constructor(space: AddressSpace, name: string, length: bigint) {
    requirePlace(space, AddressRange.of(0n, length), `device memory "${valueText(name)}"`);
    const state = newRegion(space, { name, length, kind: 'device', priority: DEFAULT_PRIORITY.device });
    this.#space = space;
    this.#id = state.id;
    this.name = name;
    this.length = length;
    // Later calls queue behind this one. If it fails, they fail with `ERR_REGION_REMOVED`.
    space.change((draft) => draft.add(state)).catch(() => {});
  }

  /**
   * Maps memory at an offset of the window and replaces the mappings there. The VMM emulates offsets without memory.
   *
   * @param options.offset bytes from the start of the window; whole pages
   * @param options.length bytes; whole pages
   * @param options.writable whether devices may write. Default: true
   * @throws {PeerDmaError} as {@link Region.addMapping}
   */
  async map(options: { offset: bigint; length: bigint; backing: Backing; writable?: boolean }): Promise<void> {
    const { offset, length, ...rest } = readOptions(options, ['offset', 'length', 'backing', 'writable']);
    requireBigint(offset, 'offset');
    await addMapping(this.#space, this.#id, this.#owner, { range: AddressRange.of(offset, length), ...rest });
  }

  /**
   * Removes memory from the window. A mapping that is cut leaves its pieces.
   *
   * @param options.offset bytes from the start of the window; whole pages
   * @param options.length bytes; whole pages
   * @throws {PeerDmaError} as {@link Region.removeMappings}
   */
  async unmap(options: { offset: bigint; length: bigint }): Promise<void> {
    const { offset, length } = readOptions(options, ['offset', 'length']);
    requireBigint(offset, 'offset');
    const range = AddressRange.of(offset, length);
    requireWithin(range, this.#owner);
    await this.#space.change((draft) => draft.unmap(this.#id, range));
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
    const { writable = true } = readOptions(options, ['writable']);
    requireBoolean(writable, 'writable');
    const at = this.#placeAt(gpa);
    await this.#space.change((draft) => draft.place(this.#id, at, writable));
  }

  /** Removes the window from guest memory; it keeps its contents. Throws as {@link DeviceMemory.mapToGuest} does. */
  async unmapFromGuest(): Promise<void> {
    await this.#space.change((draft) => draft.unplace(this.#id));
  }

  /** Identifies its region in the memory map; names are not unique. @internal */
  get regionId(): number {
    return this.#id;
  }

  /** As {@link DeviceMemory.mapToGuest}, as part of a change of several windows. @internal */
  placeIn(draft: MemoryMapDraft, gpa: bigint): void {
    draft.place(this.#id, this.#placeAt(gpa), true);
  }

  /** As {@link DeviceMemory.unmapFromGuest}, as part of a change of several windows. @internal */
  unplaceIn(draft: MemoryMapDraft): void {
    draft.unplace(this.#id);
  }

  /**
   * Removes the window with its contents. Idempotent, also after guest memory is closed.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`, `ERR_RANGE_QUARANTINED`; the error of a target that can't map the
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

  #placeAt(gpa: bigint): AddressRange {
    requireBigint(gpa, 'gpa');
    const at = AddressRange.of(gpa, this.length);
    requirePlace(this.#space, at, `device memory "${this.name}"`);
    return at;
  }

  get #owner(): { readonly name: string; readonly range: { readonly length: bigint } } {
    return { name: this.name, range: { length: this.length } };
  }
}
