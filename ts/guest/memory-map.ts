/**
 * The memory map as a value: regions, the winner at each address, and the flat map. A change edits a draft, which
 * shares unchanged parts with the map before, and becomes the next map.
 */
import { AddressRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { SortedTree } from '../sorted-tree.ts';
import { IntervalMap } from '../interval-map.ts';
import { type EntryChange, treeChanges, valueGroups } from '../tree-changes.ts';
import { type MemoryOwner, type MemorySlice, advance, isDevice } from '../memory/backing.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { Coverage } from './coverage.ts';
import { type DeviceMappingChange, type FlatChange, diffFlat } from './flat-diff.ts';
import type { FreeSpace } from './free-space.ts';
import { type Mapping, type RegionState, byPrecedence } from './region-state.ts';

type Regions = SortedTree<number, RegionState>;
/** The regions that are not active. */
type RegionIds = SortedTree<number, true>;

/** @internal */
export class MemoryMap {
  readonly #regions: Regions;
  readonly #idle: RegionIds;
  readonly #coverage: Coverage;
  /** Never changed, only cloned. */
  readonly flat: IntervalMap<SubMapping>;
  /** How many regions are not DMA buffers. */
  readonly #ofGuest: number;

  constructor(
    regions: Regions,
    idle: RegionIds,
    coverage: Coverage,
    flat: IntervalMap<SubMapping>,
    ofGuest: number = 0,
  ) {
    this.#regions = regions;
    this.#idle = idle;
    this.#coverage = coverage;
    this.flat = flat;
    this.#ofGuest = ofGuest;
  }

  static empty(): MemoryMap {
    const regions: Regions = new SortedTree();
    return new MemoryMap(regions, new SortedTree(), new Coverage(precedenceIn(regions)), new IntervalMap());
  }

  /** All, the oldest first. */
  regions(): RegionState[] {
    return this.#regions.valuesArray();
  }

  /** The region with that number, if it exists. */
  region(id: number): RegionState | undefined {
    return this.#regions.get(id);
  }

  /** The regions in groups, the oldest first. */
  regionGroups(): Iterable<readonly RegionState[]> {
    return valueGroups(this.#regions);
  }

  /** The regions that have changed since another version of the map, the oldest first. */
  regionsSince(before: MemoryMap): EntryChange<RegionState>[] {
    return treeChanges(before.#regions, this.#regions, (a, b) => a - b);
  }

  /** The active regions that have an address, the oldest first. */
  regionsAt(address: bigint): RegionState[] {
    return this.#byAge(this.#coverage.at(address));
  }

  /**
   * The active regions nearest to an address without a region, and inactive regions, the oldest first.
   *
   * @param idle the maximum number of inactive regions
   */
  regionsAround(address: bigint, idle: number): RegionState[] {
    const ids = this.#coverage.around(address);
    for (const id of this.#idle.keys()) {
      if (idle-- <= 0) break;
      ids.push(id);
    }
    return this.#byAge(ids);
  }

  draft(): MemoryMapDraft {
    const regions = this.#regions.clone();
    const coverage = this.#coverage.clone(precedenceIn(regions));
    return new MemoryMapDraft(regions, this.#idle.clone(), coverage, this.flat, this.#ofGuest);
  }

  #byAge(ids: readonly number[]): RegionState[] {
    return [...ids].sort((a, b) => a - b).flatMap((id) => this.#regions.get(id) ?? []);
  }
}

/** A memory map that is being changed. @internal */
export class MemoryMapDraft {
  readonly #regions: Regions;
  readonly #idle: RegionIds;
  readonly #coverage: Coverage;
  readonly #before: IntervalMap<SubMapping>;
  readonly #touched: AddressRange[] = [];
  /** Ids of the regions that were changed. */
  readonly #changed = new Set<number>();
  /** How many pieces of mappings were added or removed, by the owner of their memory. */
  readonly #pieces = new Map<MemoryOwner, number>();
  readonly #deviceMappings: DeviceMappingChange[] = [];
  #ofGuest: number;

  constructor(regions: Regions, idle: RegionIds, coverage: Coverage, before: IntervalMap<SubMapping>, ofGuest: number) {
    this.#regions = regions;
    this.#idle = idle;
    this.#coverage = coverage;
    this.#before = before;
    this.#ofGuest = ofGuest;
  }

  /** Whether there are regions other than DMA buffers. */
  get hasGuest(): boolean {
    return this.#ofGuest > 0;
  }

  has(id: number): boolean {
    return this.#regions.has(id);
  }

  /** @throws {PeerDmaError} `ERR_REGION_REMOVED` */
  region(id: number): RegionState {
    const region = this.#regions.get(id);
    if (region === undefined)
      throw new PeerDmaError('ERR_REGION_REMOVED', `region number ${id} has been removed: add a new one`);
    return region;
  }

  regions(): RegionState[] {
    return this.#regions.valuesArray();
  }

  /** The addresses that no active region has. */
  get free(): FreeSpace {
    return this.#coverage.free;
  }

  add(region: RegionState): void {
    this.#regions.set(region.id, region);
    this.#idle.set(region.id, true);
    if (region.isBuffer !== true) this.#ofGuest++;
    if (region.memory !== undefined) this.#count(region.id, region.memory, 1);
  }

  /** Makes a region active at an address, wherever it was before. */
  activate(id: number, at: AddressRange, writable: boolean): void {
    this.deactivate(id);
    this.#regions.set(id, { ...this.region(id), at, writable });
    this.#idle.delete(id);
    this.#coverage.cover(at, id);
    this.#touched.push(at);
    this.#changed.add(id);
  }

  deactivate(id: number): void {
    const region = this.region(id);
    if (region.at === undefined) return;
    this.#coverage.uncover(region.at, id);
    this.#touched.push(region.at);
    this.#regions.set(id, { ...region, at: undefined });
    this.#idle.set(id, true);
  }

  remove(id: number): void {
    const { length, isBuffer, memory } = this.region(id);
    this.removeMappings(id, AddressRange.between(0n, length));
    this.deactivate(id);
    this.#regions.delete(id);
    this.#idle.delete(id);
    if (isBuffer !== true) this.#ofGuest--;
    if (memory !== undefined) this.#count(id, memory, -1);
  }

  /** Adds a mapping to a region, and replaces mappings there. */
  addMapping(id: number, mapping: Mapping): void {
    this.removeMappings(id, mapping.range);
    this.addMappings(id, [mapping]);
  }

  /** Adds mappings to a region in which nothing is mapped at their ranges. */
  addMappings(id: number, added: readonly Mapping[]): void {
    const region = this.region(id);
    const mappings = region.mappings.clone();
    let { mappedLength } = region;
    for (const mapping of added) {
      mappings.insert(mapping);
      mappedLength += mapping.range.length;
      this.#count(id, mapping.memory, 1);
    }
    this.#replaceMappings(
      { ...region, mappings, mappedLength },
      added.map(({ range }) => range),
    );
  }

  /** Removes mappings from a region. A mapping that is cut leaves its pieces. */
  removeMappings(id: number, range: AddressRange): void {
    const region = this.region(id);
    const hit = region.mappings.overlapping(range);
    if (hit.length === 0) return;
    const mappings = region.mappings.clone();
    let { mappedLength } = region;
    for (const mapping of hit) {
      mappings.remove(mapping);
      mappedLength -= mapping.range.length;
      this.#count(id, mapping.memory, -1);
      const { start, end } = mapping.range;
      for (const [from, to] of [
        [start, range.start],
        [range.end, end],
      ] as const) {
        if (from >= to) continue;
        mappedLength += to - from;
        mappings.insert({
          ...mapping,
          range: AddressRange.between(from, to),
          memory: advance(mapping.memory, from - start),
        });
        this.#count(id, mapping.memory, 1);
      }
    }
    this.#replaceMappings({ ...region, mappings, mappedLength }, [range]);
  }

  /** The change of the flat map, and the memory map after it. */
  finish(): {
    change: FlatChange;
    next: MemoryMap;
    pieces: ReadonlyMap<MemoryOwner, number>;
    regions: ReadonlySet<number>;
  } {
    const { change, flat } = diffFlat(this.#before, this.#touched, (range) => this.#resolve(range));
    const next = new MemoryMap(this.#regions, this.#idle, this.#coverage, flat, this.#ofGuest);
    const deviceMappings = this.#deviceMappings;
    return { change: { ...change, deviceMappings }, next, pieces: this.#pieces, regions: this.#changed };
  }

  /** The flat map of a range as the regions of the draft resolve it, however it was cut before. */
  #resolve(range: AddressRange): SubMapping[] {
    const subs: SubMapping[] = [];
    for (const run of this.#coverage.winners(range)) {
      const region = this.region(run.region);
      const origin = region.at?.start ?? 0n; // a winner is active
      const within = AddressRange.between(run.range.start - origin, run.range.end - origin);
      for (const mapping of region.mappings.overlapping(within)) {
        const start = mapping.range.start > within.start ? mapping.range.start : within.start;
        const end = mapping.range.end < within.end ? mapping.range.end : within.end;
        subs.push({
          range: AddressRange.between(start + origin, end + origin),
          memory: advance(mapping.memory, start - mapping.range.start),
          writable: mapping.writable && region.writable,
          kind: region.kind,
          name: region.name,
          regionId: region.id,
          access: region.access,
          isInHostView: false,
        });
      }
    }
    return subs;
  }

  /** @param region with its new mappings, which differ in these ranges */
  #replaceMappings(region: RegionState, ranges: readonly AddressRange[]): void {
    this.#changed.add(region.id);
    this.#regions.set(region.id, region);
    if (region.at === undefined) return;
    const origin = region.at.start;
    for (const { start, end } of ranges) this.#touched.push(AddressRange.between(origin + start, origin + end));
  }

  #count(region: number, memory: MemorySlice, by: number): void {
    const { owner, file } = memory;
    this.#pieces.set(owner, (this.#pieces.get(owner) ?? 0) + by);
    if (file !== undefined && isDevice(memory)) this.#deviceMappings.push({ file, region, by });
  }
}

function precedenceIn(regions: Regions): (a: number, b: number) => boolean {
  return (a, b) => byPrecedence(regions.get(a) as RegionState, regions.get(b) as RegionState) < 0;
}
