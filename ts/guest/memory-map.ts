/**
 * The memory map as a value: regions, who wins where, and the flat map that results. A change is made on a draft, which
 * shares with its origin all that it leaves alone; what the draft becomes is the next memory map.
 */
import { AddressRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { SortedTree } from '../sorted-tree.ts';
import { IntervalMap } from '../interval-map.ts';
import { type StoreOwner, advance } from '../memory/backing.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { Coverage } from './coverage.ts';
import { type FlatChange, changeFlat } from './flat-change.ts';
import { type Mapping, type RegionState, byPrecedence } from './region-state.ts';

type Regions = SortedTree<number, RegionState>;

/** @internal */
export class MemoryMap {
  readonly #regions: Regions;
  readonly #coverage: Coverage;
  /** Never changed, only cloned. */
  readonly flat: IntervalMap<SubMapping>;

  constructor(regions: Regions, coverage: Coverage, flat: IntervalMap<SubMapping>) {
    this.#regions = regions;
    this.#coverage = coverage;
    this.flat = flat;
  }

  static empty(): MemoryMap {
    const regions = new SortedTree<number, RegionState>();
    return new MemoryMap(regions, new Coverage(precedenceIn(regions)), new IntervalMap());
  }

  regions(): RegionState[] {
    return this.#regions.valuesArray();
  }

  draft(): MemoryMapDraft {
    const regions = this.#regions.clone();
    return new MemoryMapDraft(regions, this.#coverage.clone(precedenceIn(regions)), this.flat);
  }
}

/** A memory map that is being changed. @internal */
export class MemoryMapDraft {
  readonly #regions: Regions;
  readonly #coverage: Coverage;
  readonly #before: IntervalMap<SubMapping>;
  readonly #touched: AddressRange[] = [];
  /** Ids of the regions that were changed. */
  readonly #changed = new Set<number>();
  /** Pieces of mappings that came or went, by the owner of their memory. */
  readonly #pieces = new Map<StoreOwner, number>();

  constructor(regions: Regions, coverage: Coverage, before: IntervalMap<SubMapping>) {
    this.#regions = regions;
    this.#coverage = coverage;
    this.#before = before;
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

  /** Where active regions are. */
  taken(): AddressRange[] {
    return this.regions().flatMap(({ at }) => at ?? []);
  }

  add(region: RegionState): void {
    this.#regions.set(region.id, region);
  }

  /** Makes a region active at an address, wherever it was before. */
  place(id: number, at: AddressRange, writable: boolean): void {
    this.unplace(id);
    this.#regions.set(id, { ...this.region(id), at, writable });
    this.#coverage.cover(at, id);
    this.#touched.push(at);
    this.#changed.add(id);
  }

  unplace(id: number): void {
    const region = this.region(id);
    if (region.at === undefined) return;
    this.#coverage.uncover(region.at, id);
    this.#touched.push(region.at);
    this.#regions.set(id, { ...region, at: undefined });
  }

  remove(id: number): void {
    this.unmap(id, AddressRange.between(0n, this.region(id).length));
    this.unplace(id);
    this.#regions.delete(id);
  }

  /** Puts memory into a region; what was there gives way. */
  map(id: number, mapping: Mapping): void {
    this.unmap(id, mapping.range);
    const region = this.region(id);
    const mappings = region.mappings.clone();
    mappings.insert(mapping);
    this.#count(mapping, 1);
    this.#replaceMappings(region, mappings, mapping.range);
  }

  /** Takes memory out of a region. A mapping that is cut leaves its pieces. */
  unmap(id: number, range: AddressRange): void {
    const region = this.region(id);
    const hit = region.mappings.overlapping(range);
    if (hit.length === 0) return;
    const mappings = region.mappings.clone();
    for (const mapping of hit) {
      mappings.remove(mapping);
      this.#count(mapping, -1);
      const { start, end } = mapping.range;
      for (const [from, to] of [
        [start, range.start],
        [range.end, end],
      ] as const) {
        if (from >= to) continue;
        mappings.insert({
          ...mapping,
          range: AddressRange.between(from, to),
          store: advance(mapping.store, from - start),
        });
        this.#count(mapping, 1);
      }
    }
    this.#replaceMappings(region, mappings, range);
  }

  /** What the change means for the flat map, and what the memory map becomes with it. */
  settle(): {
    change: FlatChange;
    next: MemoryMap;
    pieces: ReadonlyMap<StoreOwner, number>;
    regions: ReadonlySet<number>;
  } {
    const { change, flat } = changeFlat(this.#before, this.#touched, (range) => this.#resolve(range));
    const next = new MemoryMap(this.#regions, this.#coverage, flat);
    return { change, next, pieces: this.#pieces, regions: this.#changed };
  }

  /** The flat map within a range as the regions now have it, without regard to how it was cut before. */
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
          store: advance(mapping.store, start - mapping.range.start),
          writable: mapping.writable && region.writable,
          kind: region.kind,
          name: region.name,
          regionId: region.id,
        });
      }
    }
    return subs;
  }

  #replaceMappings(region: RegionState, mappings: IntervalMap<Mapping>, range: AddressRange): void {
    this.#changed.add(region.id);
    this.#regions.set(region.id, { ...region, mappings });
    if (region.at === undefined) return;
    this.#touched.push(AddressRange.between(region.at.start + range.start, region.at.start + range.end));
  }

  #count({ store: { owner } }: Mapping, change: number): void {
    this.#pieces.set(owner, (this.#pieces.get(owner) ?? 0) + change);
  }
}

function precedenceIn(regions: Regions): (a: number, b: number) => boolean {
  return (a, b) => byPrecedence(regions.get(a) as RegionState, regions.get(b) as RegionState) < 0;
}
