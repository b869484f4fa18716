/**
 * What is known of one target: how each sub-mapping of the flat map stands with it, and what it would not give back.
 */
import type { AddressRange } from '../address-range.ts';
import type { PeerDmaError } from '../errors.ts';
import { IntervalMap } from '../interval-map.ts';
import { isDevice } from '../memory/backing.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import { type Revocation, Revocations } from './revocations.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { RevocationAnswer } from './target-calls.ts';
import type { MappingStatus } from './target.ts';

/** One sub-mapping as it stands with the target. @internal */
export interface Held {
  readonly range: AddressRange;
  readonly sub: SubMapping;
  state: MappingStatus['state'];
  /** The loan of the memory, as long as the target has it mapped or may have. */
  hostMemory?: HostMemory | undefined;
  error?: PeerDmaError;
}

/** Records that are found by their region, so that a change of a region costs what the region has. @internal */
export class HeldByRegion {
  /** No set is empty. */
  readonly #byRegion = new Map<number, Set<Held>>();

  /** The number of regions that have records. */
  get size(): number {
    return this.#byRegion.size;
  }

  has(held: Held): boolean {
    return this.#byRegion.get(held.sub.regionId)?.has(held) === true;
  }

  of(regionId: number): Iterable<Held> {
    return this.#byRegion.get(regionId) ?? [];
  }

  add(held: Held): void {
    const { regionId } = held.sub;
    const records = this.#byRegion.get(regionId);
    if (records === undefined) this.#byRegion.set(regionId, new Set([held]));
    else records.add(held);
  }

  delete(held: Held): void {
    const { regionId } = held.sub;
    const records = this.#byRegion.get(regionId);
    if (records?.delete(held) === true && records.size === 0) this.#byRegion.delete(regionId);
  }
}

/** All records of a target at one moment. @internal */
export interface HeldRecords {
  /** Never changed, but for its records that have got into quarantine since, which were mapped then. */
  readonly held: IntervalMap<Held>;
  /** In order of address. */
  readonly quarantined: readonly Held[];
  /** Those of {@link HeldRecords.held} that are mapped and void. Never changed. */
  readonly revoked: IntervalMap<Revocation>;
}

/** @internal */
export class Holdings {
  /** What is in the flat map. */
  readonly #held = new IntervalMap<Held>();
  readonly #failed = new HeldByRegion();
  readonly #device = new Set<Held>();
  readonly #revocations = new Revocations();
  /** Beside it, since the flat map may want something else at those addresses. */
  readonly #quarantined = new Set<Held>();

  /** The record of a sub-mapping that is not in quarantine. */
  of(sub: SubMapping): Held | undefined {
    const held = this.#held.startingAt(sub.range.start);
    return held?.sub === sub ? held : undefined;
  }

  record(held: Held): void {
    this.#held.insert(held);
    if (held.state === 'failed') this.#failed.add(held);
    if (!isOfDevice(held.sub)) return;
    this.#device.add(held);
    if (held.state === 'mapped') this.#revocations.add(held);
  }

  forget(held: Held): void {
    if (this.of(held.sub) === held) this.#held.remove(held);
    this.#failed.delete(held);
    if (this.#device.delete(held)) this.#revocations.delete(held);
  }

  quarantine(held: Held, error: PeerDmaError): void {
    this.forget(held);
    held.state = 'quarantined';
    held.error = error;
    this.#quarantined.add(held);
  }

  /** All but those in quarantine, in order of address. */
  values(): Held[] {
    return this.#held.values();
  }

  /** All, in order of address; what is in quarantine comes after the record that begins at the same address. */
  all(): Held[] {
    return merge(this.#held.values(), [...this.#quarantined]);
  }

  /** Whether a record is one of a mapping that its device can make void. */
  canBeVoid(held: Held): boolean {
    return held.state === 'mapped' && this.#device.has(held);
  }

  /**
   * As {@link Holdings.all}. The cost grows with the devices, the quarantines, and the mappings that the target is
   * asked about.
   *
   * @param ask whether a mapping is void; `undefined` where none can be
   */
  records(ask: ((held: Held) => RevocationAnswer) | undefined): HeldRecords {
    return {
      held: this.#held.clone(),
      quarantined: [...this.#quarantined].sort(byAddress),
      revoked: ask === undefined ? new IntervalMap() : this.#revocations.update(ask),
    };
  }

  /** As {@link Holdings.all}, of those that share an address with the range. */
  overlapping(range: AddressRange): Held[] {
    const quarantined = [...this.#quarantined].filter((held) => held.range.overlaps(range));
    return merge(this.#held.overlapping(range), quarantined);
  }

  get quarantined(): ReadonlySet<Held> {
    return this.#quarantined;
  }

  /** What the target could not map. */
  get failed(): HeldByRegion {
    return this.#failed;
  }

  /** The records of device memory, but for those in quarantine, in no order. */
  get device(): ReadonlySet<Held> {
    return this.#device;
  }

  /** Forgets everything. @returns what there was */
  clear(): Held[] {
    const all = [...this.values(), ...this.#quarantined];
    for (const held of all) this.forget(held);
    this.#quarantined.clear();
    return all;
  }
}

/** A region of device memory may map any file, and a region of RAM the file of a device. */
function isOfDevice({ kind, store }: SubMapping): boolean {
  return kind === 'device' || isDevice(store);
}

function merge(held: Held[], quarantined: readonly Held[]): Held[] {
  return quarantined.length === 0 ? held : held.concat(quarantined).sort(byAddress);
}

function byAddress(a: Held, b: Held): number {
  return a.range.start < b.range.start ? -1 : a.range.start > b.range.start ? 1 : 0;
}
