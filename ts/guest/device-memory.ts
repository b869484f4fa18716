/**
 * The window of a device's BAR: its contents are prepared first, its address comes, moves and goes with the guest.
 */
import { AddressRange } from '../address-range.ts';
import { readOptions, requireBoolean } from '../arguments.ts';
import { valueText } from '../value-text.ts';
import type { Backing } from '../memory/backing.ts';
import type { AddressSpace } from './address-space.ts';
import type { MemoryMapDraft } from './memory-map.ts';
import { addMapping, newRegion, requirePlace, requireWithin } from './region-manager.ts';
import { DEFAULT_PRIORITY } from './region-state.ts';

/** Memory of a device that the guest places. It loses against RAM at the same address. */
export class DeviceMemory {
  /** For people: errors, {@link GuestMemory.inspect} and events call it so. Others may have the same. */
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
    // Later calls queue behind this one, and if it fails they say so too.
    space.change((draft) => draft.add(state)).catch(() => {});
  }

  /**
   * Shows memory at an offset of the window, replacing what was there. Offsets that nothing backs are left to the VMM
   * to emulate.
   *
   * @param options.offset bytes from the start of the window; whole pages
   * @param options.length bytes; whole pages
   * @param options.writable whether devices may write. Default: true
   * @throws {PeerDmaError} as {@link Region.addMapping}
   */
  async map(options: { offset: bigint; length: bigint; backing: Backing; writable?: boolean }): Promise<void> {
    const { offset, length, ...rest } = readOptions(options, ['offset', 'length', 'backing', 'writable']);
    await addMapping(this.#space, this.#id, this.#owner, { range: AddressRange.of(offset, length), ...rest });
  }

  /**
   * Takes memory out of the window; a mapping that is cut leaves its pieces.
   *
   * @param options.offset bytes from the start of the window; whole pages
   * @param options.length bytes; whole pages
   * @throws {PeerDmaError} as {@link Region.removeMappings}
   */
  async unmap(options: { offset: bigint; length: bigint }): Promise<void> {
    const { offset, length } = readOptions(options, ['offset', 'length']);
    const range = AddressRange.of(offset, length);
    requireWithin(range, this.#owner);
    await this.#space.change((draft) => draft.unmap(this.#id, range));
  }

  /**
   * Places the window at a guest-physical address. A window that is placed already moves, in one step: when it can't be
   * mapped at the new address, it is still at the old one.
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

  /** Takes the window out of guest memory; its contents stay. Throws as {@link DeviceMemory.mapToGuest} does. */
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
   * Takes the window out of guest memory and forgets it. Idempotent, also after guest memory was closed.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`, `ERR_RANGE_QUARANTINED`; what a target said that could not map the
   * memory which the window hides. Nothing has changed then
   */
  async close(): Promise<void> {
    await this.#space.removeRegion(this.#id);
  }

  /** As {@link DeviceMemory.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #placeAt(gpa: bigint): AddressRange {
    const at = AddressRange.of(gpa, this.length);
    requirePlace(this.#space, at, `device memory "${this.name}"`);
    return at;
  }

  get #owner(): { readonly name: string; readonly range: { readonly length: bigint } } {
    return { name: this.name, range: { length: this.length } };
  }
}
