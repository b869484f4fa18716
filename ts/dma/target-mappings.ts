/**
 * The mappings of one target: the whole flat map, except for the failures recorded here. The interval map is shared
 * with the flat map as long as both are the same.
 */
import type { AddressRange } from '../address-range.ts';
import type { PeerDmaError } from '../errors.ts';
import { IntervalMap } from '../interval-map.ts';
import { isDevice } from '../memory/backing.ts';
import { Slices, isLong } from '../slices.ts';
import type { MappingFailure } from './mapping-failure.ts';
import { type RevocationState, Revocations } from './revocations.ts';
import type { SubMapping } from './sub-mapping.ts';

/** An immutable snapshot of the mappings of a target. @internal */
export interface TargetMaps {
  /** The sub-mappings of the flat map, whatever their state in the target. Excludes quarantined ones. */
  readonly tracked: IntervalMap<SubMapping>;
  /** The tracked ones that the target could not map. */
  readonly failed: IntervalMap<MappingFailure>;
  /** The tracked ones that are mapped and revoked. */
  readonly revoked: IntervalMap<MappingFailure>;
  /** Sub-mappings that the target could not unmap. */
  readonly quarantined: IntervalMap<MappingFailure>;
}

/** @internal */
export class TargetMappings {
  #tracked = new IntervalMap<SubMapping>();
  #failed = new IntervalMap<MappingFailure>();
  /** The failed ones by region. No set is empty. */
  readonly #failedIn = new Map<number, Set<SubMapping>>();
  /** Separate from the tracked ones, since the flat map may have other memory at those addresses. */
  #quarantined = new IntervalMap<MappingFailure>();
  /** The tracked ones that are device memory. */
  readonly #devices = new Set<SubMapping>();
  #revocations = new Revocations();

  /** Whether no sub-mapping is tracked or quarantined. */
  get isEmpty(): boolean {
    return this.#tracked.size === 0 && this.#quarantined.size === 0;
  }

  /** Returns the tracked sub-mappings, in order of address. */
  values(): SubMapping[] {
    return this.#tracked.values();
  }

  /** As {@link TargetMappings.values}, with turns of the event loop in between. */
  valuesInTurns(slices: Slices): Promise<SubMapping[]> {
    return this.#tracked.valuesInTurns(slices);
  }

  has(sub: SubMapping): boolean {
    return this.#tracked.startingAt(sub.range.start) === sub;
  }

  /** Returns why the target could not map a tracked sub-mapping, if it could not. */
  errorOf(sub: SubMapping): PeerDmaError | undefined {
    return this.#failureOf(sub)?.error;
  }

  /** Returns the sub-mappings of a region that the target could not map. */
  failedIn(regionId: number): Iterable<SubMapping> {
    return this.#failedIn.get(regionId) ?? [];
  }

  get failedCount(): number {
    return this.#failed.size;
  }

  /** The tracked sub-mappings of device memory, unordered. */
  get devices(): ReadonlySet<SubMapping> {
    return this.#devices;
  }

  /** Sub-mappings that the target could not unmap, in order of address. */
  get quarantined(): IntervalMap<MappingFailure> {
    return this.#quarantined;
  }

  /**
   * Tracks sub-mappings of the flat map. A long list is recorded at once, after turns of the event loop.
   *
   * @param isMapped whether the target has mapped a sub-mapping
   * @param options.failed those that the target could not map
   * @param options.all all tracked sub-mappings including these, if the caller has an interval map of them
   */
  track(
    subs: readonly SubMapping[],
    isMapped: (sub: SubMapping) => boolean,
    options: { failed?: readonly MappingFailure[]; all?: IntervalMap<SubMapping> | undefined } = {},
  ): void | Promise<void> {
    const { failed = [], all } = options;
    if (isLong(subs)) return this.#trackInTurns(subs, isMapped, failed, all);
    if (all === undefined) for (const sub of subs) this.#tracked.insert(sub);
    else this.#tracked = all.clone();
    this.#addDevices(subs.filter(isOfDevice), isMapped);
    for (const failure of failed) this.fail(failure);
  }

  async #trackInTurns(
    subs: readonly SubMapping[],
    isMapped: (sub: SubMapping) => boolean,
    failed: readonly MappingFailure[],
    all: IntervalMap<SubMapping> | undefined,
  ): Promise<void> {
    const slices = new Slices();
    const devices = await slices.filter(subs, isOfDevice);
    const tracked = (all ?? this.#tracked).clone();
    if (all === undefined) await slices.forEach(subs, (sub) => tracked.insert(sub));
    this.#tracked = tracked;
    this.#addDevices(devices, isMapped);
    for (const failure of failed) this.fail(failure);
  }

  #addDevices(devices: readonly SubMapping[], isMapped: (sub: SubMapping) => boolean): void {
    for (const sub of devices) {
      this.#devices.add(sub);
      if (isMapped(sub)) this.#revocations.add(sub);
    }
  }

  /** Records that the target could not map a tracked sub-mapping. */
  fail(failure: MappingFailure): void {
    const { sub } = failure;
    this.#failed.insert(failure);
    const others = this.#failedIn.get(sub.regionId);
    if (others === undefined) this.#failedIn.set(sub.regionId, new Set([sub]));
    else others.add(sub);
  }

  /** Removes tracked sub-mappings. */
  remove(subs: readonly SubMapping[]): void {
    for (const sub of subs) {
      this.#tracked.remove(sub);
      if (this.#devices.delete(sub)) this.#revocations.delete(sub);
      const failure = this.#failureOf(sub);
      if (failure === undefined) continue;
      this.#failed.remove(failure);
      const others = this.#failedIn.get(sub.regionId);
      others?.delete(sub);
      if (others?.size === 0) this.#failedIn.delete(sub.regionId);
    }
  }

  /** Records sub-mappings that the target could not unmap. Each keeps its memory, as a piece of a mapping does. */
  quarantine(failures: readonly MappingFailure[]): void {
    for (const failure of failures) {
      failure.sub.memory.owner.count(1);
      if (this.has(failure.sub)) this.remove([failure.sub]);
      this.#quarantined.insert(failure);
    }
  }

  /** Returns the tracked sub-mappings that overlap a range, in order of address. */
  overlapping(range: AddressRange): SubMapping[] {
    return this.#tracked.overlapping(range);
  }

  /** Whether the device of a tracked sub-mapping can revoke it. */
  isRevocable(sub: SubMapping): boolean {
    return this.#devices.has(sub) && this.#failureOf(sub) === undefined;
  }

  /**
   * Returns a snapshot. The cost grows with the number of devices and of checked mappings.
   *
   * @param check whether a mapping is revoked; `undefined` if the target never revokes mappings
   */
  snapshot(check: ((sub: SubMapping) => RevocationState) | undefined): TargetMaps {
    return {
      tracked: this.#tracked.clone(),
      failed: this.#failed.clone(),
      revoked: check === undefined ? new IntervalMap() : this.#revocations.update(check),
      quarantined: this.#quarantined.clone(),
    };
  }

  #failureOf(sub: SubMapping): MappingFailure | undefined {
    if (this.#failed.size === 0) return undefined;
    const failure = this.#failed.startingAt(sub.range.start);
    return failure?.sub === sub ? failure : undefined;
  }

  /** Removes all tracked sub-mappings. */
  clear(): void {
    this.#tracked = new IntervalMap();
    this.#failed = new IntervalMap();
    this.#failedIn.clear();
    this.#devices.clear();
    this.#revocations = new Revocations();
  }

  /** Removes all quarantined sub-mappings and returns them. The caller releases their memory. */
  clearQuarantine(): MappingFailure[] {
    const all = this.#quarantined.values();
    this.#quarantined = new IntervalMap();
    return all;
  }
}

// A region of device memory may map any file, and a region of RAM the file of a device.
function isOfDevice({ kind, memory }: SubMapping): boolean {
  return kind === 'device' || isDevice(memory);
}
