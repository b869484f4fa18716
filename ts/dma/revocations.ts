/**
 * Which mappings of device memory are revoked in one target. Only a device revokes mappings of it, so the target is
 * asked only about mappings that are new, or whose device has lost mappings since the last time.
 */
import type { PeerDmaError } from '../errors.ts';
import { IntervalMap } from '../interval-map.ts';
import { type DeviceState, deviceStateOf } from '../memory/device-state.ts';
import type { MappingFailure } from './mapping-failure.ts';
import type { SubMapping } from './sub-mapping.ts';

/** What a target answers when it is asked whether a mapping is revoked. @internal */
export interface RevocationAnswer {
  /** Why it is revoked, if it is. */
  readonly error: PeerDmaError | undefined;
  /** `false` when `isRevoked` failed: the mapping counts as revoked then. */
  readonly known: boolean;
}

/** The mappings of the memory of one device. */
interface DeviceMappings {
  readonly all: Set<SubMapping>;
  /** Those that the target was not asked about. */
  readonly fresh: Set<SubMapping>;
  /** {@link DeviceState.revocations} when the target was asked about all of them. */
  seen: number;
}

/** @internal */
export class Revocations {
  readonly #devices = new Map<DeviceState, DeviceMappings>();
  readonly #deviceOf = new Map<SubMapping, DeviceState>();
  /** The target is asked about these each time: their device is not known here, or `isRevoked` failed. */
  readonly #uncertain = new Set<SubMapping>();
  readonly #revoked = new IntervalMap<MappingFailure>();

  add(sub: SubMapping): void {
    const device = deviceStateOf(sub.store.file);
    if (device === undefined) {
      this.#uncertain.add(sub);
      return;
    }
    this.#deviceOf.set(sub, device);
    let mappings = this.#devices.get(device);
    if (mappings === undefined) {
      mappings = { all: new Set(), fresh: new Set(), seen: device.revocations };
      this.#devices.set(device, mappings);
    }
    mappings.all.add(sub);
    mappings.fresh.add(sub);
  }

  delete(sub: SubMapping): void {
    this.#uncertain.delete(sub);
    this.#setRevoked(sub, undefined);
    const device = this.#deviceOf.get(sub);
    const mappings = device && this.#devices.get(device);
    if (device === undefined || mappings === undefined) return;
    this.#deviceOf.delete(sub);
    mappings.fresh.delete(sub);
    mappings.all.delete(sub);
    if (mappings.all.size === 0) this.#devices.delete(device);
  }

  /**
   * The revoked mappings now. The result does not change later.
   *
   * @param ask whether a mapping is revoked
   */
  update(ask: (sub: SubMapping) => RevocationAnswer): IntervalMap<MappingFailure> {
    const due = [...this.#uncertain];
    for (const [device, mappings] of this.#devices) {
      const { revocations } = device;
      for (const sub of revocations === mappings.seen ? mappings.fresh : mappings.all) due.push(sub);
      mappings.seen = revocations;
      mappings.fresh.clear();
    }
    for (const sub of due) {
      const { error, known } = ask(sub);
      if (!known) this.#uncertain.add(sub);
      else if (this.#deviceOf.has(sub)) this.#uncertain.delete(sub);
      this.#setRevoked(sub, error);
    }
    return this.#revoked.clone();
  }

  #setRevoked(sub: SubMapping, error: PeerDmaError | undefined): void {
    const { range } = sub;
    const was = this.#revoked.startingAt(range.start);
    if (was?.sub === sub) {
      if (was.error.message === error?.message) return;
      this.#revoked.remove(was);
    }
    if (error !== undefined) this.#revoked.insert({ range, sub, error });
  }
}
