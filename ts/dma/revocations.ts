/**
 * Tracks the revoked mappings of device memory in one target. Only a device revokes its mappings, so `isRevoked` of the
 * target is called only for mappings that are new, or whose device has revoked mappings since the last call.
 */
import type { PeerDmaError } from '../errors.ts';
import { IntervalMap } from '../interval-map.ts';
import type { DeviceState } from '../memory/shared-file.ts';
import type { MappingFailure } from './mapping-failure.ts';
import type { SubMapping } from './sub-mapping.ts';

/** The result of `isRevoked` for one mapping. @internal */
export interface RevocationState {
  /** Why the mapping is revoked, if it is. */
  readonly error: PeerDmaError | undefined;
  /** `false` when `isRevoked` failed: the mapping counts as revoked then. */
  readonly known: boolean;
}

/** The mappings of one device's memory. */
interface DeviceMappings {
  readonly all: Set<SubMapping>;
  /** Those for which `isRevoked` was not called yet. */
  readonly unchecked: Set<SubMapping>;
  /** {@link DeviceState.revocations} when `isRevoked` was called for all of them. */
  checkedAt: number;
}

/** @internal */
export class Revocations {
  readonly #devices = new Map<DeviceState, DeviceMappings>();
  readonly #deviceOf = new Map<SubMapping, DeviceState>();
  /** These are checked each time: their device is unknown, or `isRevoked` failed. */
  readonly #uncertain = new Set<SubMapping>();
  readonly #revoked = new IntervalMap<MappingFailure>();

  add(sub: SubMapping): void {
    const device = sub.memory.file?.device;
    if (device === undefined) {
      this.#uncertain.add(sub);
      return;
    }
    this.#deviceOf.set(sub, device);
    let mappings = this.#devices.get(device);
    if (mappings === undefined) {
      mappings = { all: new Set(), unchecked: new Set(), checkedAt: device.revocations };
      this.#devices.set(device, mappings);
    }
    mappings.all.add(sub);
    mappings.unchecked.add(sub);
  }

  delete(sub: SubMapping): void {
    this.#uncertain.delete(sub);
    this.#setRevoked(sub, undefined);
    const device = this.#deviceOf.get(sub);
    const mappings = device && this.#devices.get(device);
    if (device === undefined || mappings === undefined) return;
    this.#deviceOf.delete(sub);
    mappings.unchecked.delete(sub);
    mappings.all.delete(sub);
    if (mappings.all.size === 0) this.#devices.delete(device);
  }

  /**
   * Returns the revoked mappings. The result does not change later.
   *
   * @param check whether a mapping is revoked
   */
  update(check: (sub: SubMapping) => RevocationState): IntervalMap<MappingFailure> {
    const due = [...this.#uncertain];
    for (const [device, mappings] of this.#devices) {
      const { revocations } = device;
      for (const sub of revocations === mappings.checkedAt ? mappings.unchecked : mappings.all) due.push(sub);
      mappings.checkedAt = revocations;
      mappings.unchecked.clear();
    }
    for (const sub of due) {
      const { error, known } = check(sub);
      if (!known) this.#uncertain.add(sub);
      else if (this.#deviceOf.has(sub)) this.#uncertain.delete(sub);
      this.#setRevoked(sub, error);
    }
    return this.#revoked.clone();
  }

  #setRevoked(sub: SubMapping, error: PeerDmaError | undefined): void {
    const { range } = sub;
    const previous = this.#revoked.startingAt(range.start);
    if (previous?.sub === sub) {
      if (previous.error.message === error?.message) return;
      this.#revoked.remove(previous);
    }
    if (error !== undefined) this.#revoked.insert({ range, sub, error });
  }
}
