/**
 * Regions: named ranges of guest memory with mappings. A region is active or not, and hides others of lower priority.
 */
import { type AddressRange, hex, requireAligned, requireRange } from '../address-range.ts';
import { readOptions, requireBoolean } from '../arguments.ts';
import type { MemoryKind } from '../dma/target.ts';
import { PeerDmaError } from '../errors.ts';
import { IntervalMap } from '../interval-map.ts';
import { type Backing, type StoreOptions, openStore } from '../memory/backing.ts';
import { hostPageSize } from '../memory/page-size.ts';
import type { AddressSpace } from './address-space.ts';
import { INSPECT, objectText } from '../object-text.ts';
import { sizeOf } from '../size.ts';
import { requireNumber } from '../number-types.ts';
import { beyondWidth } from './address-width.ts';
import { DEFAULT_PRIORITY, type RegionState } from './region-state.ts';
import { valueText } from '../value-text.ts';

/** Options of {@link Region.addMapping}. */
export interface MappingOptions {
  /** Offsets from the start of the region, in bytes; whole pages. */
  readonly range: AddressRange;
  /** The memory to map. */
  readonly backing: Backing;
  /** Whether devices may write. Default: true. */
  readonly writable?: boolean;
}

/** Makes regions. */
export class RegionManager {
  readonly #space: AddressSpace;

  /** @internal */
  constructor(space: AddressSpace) {
    this.#space = space;
  }

  /**
   * Adds an inactive region without memory. Nothing is mapped to a target before {@link Region.map}.
   *
   * Where active regions overlap, the region of higher priority wins, and of equal priorities the older one. It wins in
   * all of its range, also at addresses without memory.
   *
   * @param options.range guest-physical addresses; whole pages, within the address width
   * @param options.priority any finite number. Default: {@link DEFAULT_PRIORITY} of the kind
   * @param options.kind default: `ram`
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_CLOSED`
   */
  async addRegion(options: {
    name: string;
    range: AddressRange;
    priority?: number;
    kind?: MemoryKind;
  }): Promise<Region> {
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

/** A range of guest memory with a fixed address. */
export class Region {
  /** For errors, {@link GuestMemory.inspect} and events. Not unique. */
  readonly name: string;
  /** Guest-physical addresses. */
  readonly range: AddressRange;
  readonly #space: AddressSpace;
  readonly #id: number;

  /** @internal */
  constructor(space: AddressSpace, id: number, name: string, range: AddressRange) {
    this.#space = space;
    this.#id = id;
    this.name = name;
    this.range = range;
  }

  /**
   * Maps memory in the region and replaces the mappings that it covers. If the region is active, all targets map it.
   *
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` outside of the region or past the end of the file, `ERR_UNALIGNED`,
   * `ERR_RANGE_QUARANTINED`, `ERR_REGION_REMOVED`, `ERR_CLOSED`; the error of a target. Nothing has changed then
   */
  async addMapping(options: MappingOptions): Promise<void> {
    await addMapping(this.#space, this.#id, this, options);
  }

  /**
   * Removes memory from the region.
   *
   * A mapping that is cut leaves its pieces. An IOMMU mapping can't be cut, so it is unmapped and its pieces are
   * mapped: only then are unchanged addresses out of a device's reach for a moment.
   *
   * @param range offsets from the start of the region; whole pages. Gaps in it are fine
   * @throws {PeerDmaError} as {@link Region.addMapping}
   */
  async removeMappings(range: AddressRange): Promise<void> {
    requireWithin(range, this);
    await this.#space.change((draft) => draft.unmap(this.#id, range));
  }

  /**
   * Makes the region active, or changes the writability of an active region.
   *
   * @param options.writable `false` makes every mapping in it read-only for devices. Default: true
   * @throws {PeerDmaError} `ERR_RANGE_QUARANTINED`, `ERR_REGION_REMOVED`, `ERR_CLOSED`; the error of a target.
   * Nothing has changed then, and the call can be repeated
   */
  async map(options: { writable?: boolean } = {}): Promise<void> {
    const { writable = true } = readOptions(options, ['writable']);
    requireBoolean(writable, 'writable');
    await this.#space.change((draft) => draft.place(this.#id, this.range, writable));
  }

  /** Makes the region inactive; it keeps its mappings. Throws as {@link Region.map} does. */
  async unmap(): Promise<void> {
    await this.#space.change((draft) => draft.unplace(this.#id));
  }

  /**
   * Removes the region with its mappings. Idempotent, also after guest memory is closed.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`, `ERR_RANGE_QUARANTINED`; the error of a target that can't map the
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

/** The state of a region for `console.log`. @internal */
export function stateText(region: RegionState | undefined): string {
  if (region === undefined) return 'removed';
  if (region.at === undefined) return 'inactive';
  return region.writable ? 'active' : 'active, read-only';
}

function requireKind(kind: MemoryKind): void {
  if (typeof kind === 'string' && Object.hasOwn(DEFAULT_PRIORITY, kind)) return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the kind of a region is 'ram' or 'device', not ${valueText(kind)}`);
}

/** @internal */
export function newRegion(
  space: AddressSpace,
  options: { name: string; length: bigint; kind: MemoryKind; priority: number; isBuffer?: boolean },
): RegionState {
  if (typeof options.name !== 'string' || options.name === '') {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `a region has a name, not ${valueText(options.name)}`);
  }
  requireKind(options.kind);
  requireNumber(options.priority, 'priority');
  if (!Number.isFinite(options.priority)) {
    throw new PeerDmaError(
      'ERR_INVALID_ARGUMENT',
      `the priority of a region is finite, not ${valueText(options.priority)}`,
    );
  }
  return { ...options, id: space.nextRegionId(), writable: true, mappings: new IntervalMap() };
}

/** Adds a mapping to a region by id; shared with device memory. @internal */
export async function addMapping(
  space: AddressSpace,
  id: number,
  owner: { readonly name: string; readonly range: { readonly length: bigint } },
  mapping: MappingOptions,
  options?: StoreOptions,
): Promise<void> {
  const { range, backing, writable = true } = readOptions(mapping, ['range', 'backing', 'writable']);
  requireBoolean(writable, 'writable');
  requireWithin(range, owner);
  const store = openStore(backing, range.length, options);
  try {
    await space.change((draft) => draft.map(id, { range, store, writable }));
  } catch (error) {
    store.owner.count(0);
    throw error;
  }
}

/** @internal */
export function requireWithin(
  range: AddressRange,
  owner: { readonly name: string; readonly range: { readonly length: bigint } },
): void {
  requireRange(range);
  requireAligned(range, hostPageSize(), `the mapping in "${owner.name}",`);
  if (range.end > owner.range.length) {
    throw new PeerDmaError(
      'ERR_OUT_OF_RANGE',
      `"${owner.name}" has ${hex(owner.range.length)} bytes, and ${range} are not within: ranges of mappings are offsets from the start of their region`,
      { range },
    );
  }
}

/** Checks guest-physical addresses for a region. @internal */
export function requirePlace(space: AddressSpace, range: AddressRange, what: string): void {
  requireRange(range);
  requireAligned(range, hostPageSize(), `${what} at`);
  const why = beyondWidth(range, space.width);
  if (why !== undefined) throw new PeerDmaError('ERR_OUT_OF_RANGE', `${what} at ${range} ${why}`, { range });
}
