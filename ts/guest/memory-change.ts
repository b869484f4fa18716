/**
 * Regions of guest memory and their changes by the VMM: any number of edits that apply as one.
 */
import { AddressRange, hex, requireAligned, requireRange } from '../address-range.ts';
import { readOptions, requireBoolean } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { type Backing, type MemorySlice, openBacking } from '../memory/backing.ts';
import { requireBigint } from '../number-types.ts';
import { hostPageSize } from '../memory/page-size.ts';
import { valueText } from '../value-text.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import type { DeviceMemory } from './device-memory.ts';
import type { MemoryMapDraft } from './memory-map.ts';
import type { Region } from './region.ts';
import { requirePlace } from './new-region.ts';

/** Options of {@link MemoryRegion.addMapping}. */
export interface MappingOptions {
  /** Offsets from the start of the region, in bytes; whole pages. Default: all of the region. */
  readonly range?: AddressRange;
  /** The memory to map. */
  readonly backing: Backing;
  /** Whether devices may write. Default: true. */
  readonly writable?: boolean;
}

/** Options of {@link Region.mapToGuest} and {@link DeviceMemory.mapToGuest}. */
export interface MapToGuestOptions {
  /** Whether devices may write to its writable mappings; `false` makes all of them read-only. Default: true */
  readonly writable?: boolean;
}

/** Identifies a region in its memory map. @internal */
export interface RegionParts {
  readonly space: GuestAddressSpace;
  /** Names are not unique. */
  readonly id: number;
  /** Its guest-physical addresses, if they are fixed. */
  readonly range?: AddressRange;
}

/** The private parts of a region; `undefined` for anything else. @internal */
export let partsOfRegion: (region: MemoryRegion) => RegionParts | undefined;

/**
 * Memory with contents that can be mapped to the guest.
 *
 * A {@link Region} has a fixed address. The guest places {@link DeviceMemory}.
 */
export abstract class MemoryRegion {
  /** For errors, {@link GuestMemory.inspect} and events. Not unique. */
  readonly name: string;
  /** Bytes; whole pages. */
  readonly length: bigint;
  readonly #parts: RegionParts;

  static {
    partsOfRegion = (region) =>
      typeof region === 'object' && region !== null && #parts in region ? region.#parts : undefined;
  }

  /** @internal */
  constructor(parts: RegionParts, name: string, length: bigint) {
    this.#parts = parts;
    this.name = name;
    this.length = length;
  }

  /**
   * Maps memory in the region and replaces the mappings that it covers.
   *
   * If the region is active, all targets map it. The VMM emulates offsets without memory.
   *
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` outside of the region or past the end of the file, `ERR_UNALIGNED`,
   * `ERR_RANGE_QUARANTINED`, `ERR_REGION_REMOVED`, `ERR_CLOSED`; the error of a target. Nothing has changed then
   */
  async addMapping(options: MappingOptions): Promise<void> {
    await changeMemory(this.#parts.space, (change) => change.addMapping(this, options));
  }

  /**
   * Removes memory from the region.
   *
   * A mapping that is cut leaves its pieces. An IOMMU mapping cannot be cut, so it is unmapped and its pieces are
   * mapped: only then are unchanged addresses out of a device's reach for a moment.
   *
   * @param range offsets from the start of the region; whole pages. Gaps in it are fine
   * @throws {PeerDmaError} as {@link MemoryRegion.addMapping}
   */
  async removeMappings(range: AddressRange): Promise<void> {
    await changeMemory(this.#parts.space, (change) => change.removeMappings(this, range));
  }

  /**
   * Makes the region inactive; it keeps its mappings.
   *
   * @throws {PeerDmaError} as {@link MemoryRegion.addMapping}
   */
  async unmapFromGuest(): Promise<void> {
    await changeMemory(this.#parts.space, (change) => change.unmapFromGuest(this));
  }
}

/**
 * Makes the edits of one change.
 *
 * @throws {PeerDmaError} the error of an edit or of the change. Nothing has changed then
 * @internal
 */
export async function changeMemory(space: GuestAddressSpace, edit: (change: MemoryChange) => void): Promise<void> {
  if (typeof edit !== 'function') throw invalid(`a change is a function that makes it, not ${valueText(edit)}`);
  const pending = new PendingChange();
  try {
    const result: unknown = edit(new MemoryChange(space, pending));
    if (isThenable(result)) {
      Promise.resolve(result).catch(() => {}); // the change is rejected with a clearer error
      throw invalid('a change is made by a function that returns nothing, not a promise. Await before the change.');
    }
    pending.isOpen = false;
    await space.change((draft) => {
      for (const apply of pending.edits) apply(draft);
    });
  } catch (error) {
    pending.isOpen = false;
    for (const { owner } of pending.memory) owner.count(0); // closes it unless a region has it
    throw error;
  }
}

/** The edits of a change, and the memory that they hold until it is made. */
class PendingChange {
  isOpen = true;
  readonly edits: ((draft: MemoryMapDraft) => void)[] = [];
  readonly memory: MemorySlice[] = [];
}

/**
 * The edits of one change, in order. They take effect together, after the function that makes them has returned. Their
 * arguments are checked at once.
 */
export class MemoryChange {
  readonly #space: GuestAddressSpace;
  readonly #pending: PendingChange;

  /** @internal */
  constructor(space: GuestAddressSpace, pending: PendingChange) {
    this.#space = space;
    this.#pending = pending;
  }

  /** As {@link MemoryRegion.addMapping}. */
  addMapping(region: MemoryRegion, options: MappingOptions): void {
    const { id } = this.#partsOf(region);
    const given = readOptions(options, ['range', 'backing', 'writable']);
    const { range = AddressRange.of(0n, region.length), backing, writable = true } = given;
    requireBoolean(writable, 'writable');
    requireWithin(range, region);
    const memory = openBacking(backing, range.length);
    this.#pending.memory.push(memory);
    this.#add((draft) => draft.addMapping(id, { range, memory, writable }));
  }

  /** As {@link MemoryRegion.removeMappings}. */
  removeMappings(region: MemoryRegion, range: AddressRange): void {
    const { id } = this.#partsOf(region);
    requireWithin(range, region);
    this.#add((draft) => draft.removeMappings(id, range));
  }

  /** As {@link Region.mapToGuest}. */
  mapToGuest(region: Region, options?: MapToGuestOptions): void;
  /** As {@link DeviceMemory.mapToGuest}. @param gpa guest-physical address; a multiple of the page size */
  mapToGuest(window: DeviceMemory, gpa: bigint, options?: MapToGuestOptions): void;
  mapToGuest(region: MemoryRegion, ...rest: unknown[]): void {
    const { id, range } = this.#partsOf(region);
    const at = range ?? rangeAt(rest.shift() as bigint, region.length);
    const [options = {}] = rest as [MapToGuestOptions?];
    const { writable = true } = readOptions(options, ['writable']);
    requireBoolean(writable, 'writable');
    requirePlace(this.#space, at, `"${region.name}"`);
    this.#add((draft) => draft.activate(id, at, writable));
  }

  /** As {@link MemoryRegion.unmapFromGuest}. */
  unmapFromGuest(region: MemoryRegion): void {
    const { id } = this.#partsOf(region);
    this.#add((draft) => draft.deactivate(id));
  }

  /** As {@link Region.remove} or {@link DeviceMemory.remove}. Rejects a removed region. */
  remove(region: MemoryRegion): void {
    const { id } = this.#partsOf(region);
    this.#add((draft) => draft.remove(id));
  }

  #add(edit: (draft: MemoryMapDraft) => void): void {
    this.#pending.edits.push(edit);
  }

  /** Returns the parts of a region that this change may edit. */
  #partsOf(region: MemoryRegion): RegionParts {
    if (!this.#pending.isOpen) {
      throw invalid('this change has been made. Call its methods within the function given to GuestMemory.change.');
    }
    const parts = partsOfRegion(region);
    if (parts === undefined) throw invalid(`a region or device memory is expected, not ${valueText(region)}`);
    if (parts.space !== this.#space) {
      throw invalid(`"${region.name}" belongs to another guest memory. Change each guest memory by itself.`);
    }
    return parts;
  }
}

function rangeAt(gpa: bigint, length: bigint): AddressRange {
  requireBigint(gpa, 'gpa');
  return AddressRange.of(gpa, length);
}

function requireWithin(range: AddressRange, { name, length }: MemoryRegion): void {
  requireRange(range);
  requireAligned(range, hostPageSize(), `the mapping in "${name}",`);
  if (range.end <= length) return;
  const reason = `"${name}" has ${hex(length)} bytes, and ${range} are not within`;
  const text = `${reason}: ranges of mappings are offsets from the start of their region`;
  throw new PeerDmaError('ERR_OUT_OF_RANGE', text, { range });
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value;
}

function invalid(message: string): PeerDmaError {
  return new PeerDmaError('ERR_INVALID_ARGUMENT', message);
}
