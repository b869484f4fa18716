/**
 * What one target has of the flat map: all of it, but for the exceptions recorded here. The map itself is shared with
 * the flat map as long as both are the same.
 */
import type { AddressRange } from '../address-range.ts';
import type { PeerDmaError } from '../errors.ts';
import { IntervalMap } from '../interval-map.ts';
import { isDevice } from '../memory/backing.ts';
import type { MappingFailure } from './mapping-failure.ts';
import { type RevocationAnswer, Revocations } from './revocations.ts';
import type { SubMapping } from './sub-mapping.ts';

/** What a target had at one moment. Never changed. @internal */
export interface TargetMaps {
  /** What the target was given, or was to be given, but for what is quarantined. */
  readonly given: IntervalMap<SubMapping>;
  /** What of it the target could not map. */
  readonly failed: IntervalMap<MappingFailure>;
  /** What of it is mapped and revoked. */
  readonly revoked: IntervalMap<MappingFailure>;
  /** What the target could not unmap. */
  readonly quarantined: IntervalMap<MappingFailure>;
}

/** @internal */
export class TargetMappings {
  #given = new IntervalMap<SubMapping>();
  #failed = new IntervalMap<MappingFailure>();
  /** The failed ones of each region; no set is empty. */
  readonly #failedIn = new Map<number, Set<SubMapping>>();
  /** Beside the given ones, since the flat map may have something else at those addresses. */
  #quarantined = new IntervalMap<MappingFailure>();
  /** Of the given ones, those of device memory. */
  readonly #devices = new Set<SubMapping>();
  #revocations = new Revocations();

  /** Whether nothing is given, and nothing quarantined. */
  get isEmpty(): boolean {
    return this.#given.size === 0 && this.#quarantined.size === 0;
  }

  /** What is given, in order of address. */
  values(): SubMapping[] {
    return this.#given.values();
  }

  has(sub: SubMapping): boolean {
    return this.#given.startingAt(sub.range.start) === sub;
  }

  /** Why the target could not map a given sub-mapping, if it could not. */
  errorOf(sub: SubMapping): PeerDmaError | undefined {
    return this.#failureOf(sub)?.error;
  }

  /** The sub-mappings of a region that the target could not map. */
  failedIn(regionId: number): Iterable<SubMapping> {
    return this.#failedIn.get(regionId) ?? [];
  }

  get failedCount(): number {
    return this.#failed.size;
  }

  /** The given sub-mappings of device memory, in no order. */
  get devices(): ReadonlySet<SubMapping> {
    return this.#devices;
  }

  /** What the target could not unmap, in order of address. */
  get quarantined(): IntervalMap<MappingFailure> {
    return this.#quarantined;
  }

  /**
   * Records sub-mappings as given.
   *
   * @param isMapped whether the target has mapped one
   * @param all what is given then, if the caller has a map of it
   */
  give(subs: readonly SubMapping[], isMapped: (sub: SubMapping) => boolean, all?: IntervalMap<SubMapping>): void {
    if (all === undefined) for (const sub of subs) this.#given.insert(sub);
    else this.#given = all.clone();
    for (const sub of subs) {
      if (!isOfDevice(sub)) continue;
      this.#devices.add(sub);
      if (isMapped(sub)) this.#revocations.add(sub);
    }
  }

  /** Records that the target could not map a given sub-mapping. */
  fail(failure: MappingFailure): void {
    const { sub } = failure;
    this.#failed.insert(failure);
    const others = this.#failedIn.get(sub.regionId);
    if (others === undefined) this.#failedIn.set(sub.regionId, new Set([sub]));
    else others.add(sub);
  }

  /** Removes sub-mappings that were given. */
  remove(subs: readonly SubMapping[]): void {
    for (const sub of subs) {
      this.#given.remove(sub);
      if (this.#devices.delete(sub)) this.#revocations.delete(sub);
      const failure = this.#failureOf(sub);
      if (failure === undefined) continue;
      this.#failed.remove(failure);
      const others = this.#failedIn.get(sub.regionId);
      others?.delete(sub);
      if (others?.size === 0) this.#failedIn.delete(sub.regionId);
    }
  }

  /** Records what the target could not unmap. */
  quarantine(failures: readonly MappingFailure[]): void {
    for (const failure of failures) {
      if (this.has(failure.sub)) this.remove([failure.sub]);
      this.#quarantined.insert(failure);
    }
  }

  /** What is given and shares an address with the range, in order of address. */
  overlapping(range: AddressRange): SubMapping[] {
    return this.#given.overlapping(range);
  }

  /** Whether the device of a given sub-mapping can revoke it. */
  isRevocable(sub: SubMapping): boolean {
    return this.#devices.has(sub) && this.#failureOf(sub) === undefined;
  }

  /**
   * What the target has now. The cost grows with the devices and the mappings that the target is asked about.
   *
   * @param ask whether a mapping is revoked; `undefined` when none can be
   */
  snapshot(ask: ((sub: SubMapping) => RevocationAnswer) | undefined): TargetMaps {
    return {
      given: this.#given.clone(),
      failed: this.#failed.clone(),
      revoked: ask === undefined ? new IntervalMap() : this.#revocations.update(ask),
      quarantined: this.#quarantined.clone(),
    };
  }

  #failureOf(sub: SubMapping): MappingFailure | undefined {
    if (this.#failed.size === 0) return undefined;
    const failure = this.#failed.startingAt(sub.range.start);
    return failure?.sub === sub ? failure : undefined;
  }

  /** Removes all that is given. */
  clear(): void {
    this.#given = new IntervalMap();
    this.#failed = new IntervalMap();
    this.#failedIn.clear();
    this.#devices.clear();
    this.#revocations = new Revocations();
  }

  /** Removes what is quarantined. @returns what there was */
  clearQuarantine(): MappingFailure[] {
    const all = this.#quarantined.values();
    this.#quarantined = new IntervalMap();
    return all;
  }
}

/** A region of device memory may map any file, and a region of RAM the file of a device. */
function isOfDevice({ kind, store }: SubMapping): boolean {
  return kind === 'device' || isDevice(store);
}
