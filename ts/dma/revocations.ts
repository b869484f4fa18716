/**
 * Which mappings of device memory are void with one target. A mapping becomes void through its device, so the target is
 * asked only about mappings that are new, or whose device has lost mappings since the last time.
 */
import type { AddressRange } from '../address-range.ts';
import type { PeerDmaError } from '../errors.ts';
import { IntervalMap } from '../interval-map.ts';
import { type DeviceState, deviceStateOf } from '../memory/device-state.ts';
import type { Held } from './holdings.ts';
import type { RevocationAnswer } from './target-calls.ts';

/** A void mapping. @internal */
export interface Revocation {
  readonly range: AddressRange;
  readonly held: Held;
  /** Why it is void. */
  readonly error: PeerDmaError;
}

/** The mappings of the memory of one device. */
interface DeviceMappings {
  readonly all: Set<Held>;
  /** Those that the target was not asked about. */
  readonly fresh: Set<Held>;
  /** {@link DeviceState.revocations} when the target was asked about all of them. */
  seen: number;
}

/** @internal */
export class Revocations {
  readonly #devices = new Map<DeviceState, DeviceMappings>();
  readonly #deviceOf = new Map<Held, DeviceState>();
  /** The target is asked about these each time: their device is not known here, or `isRevoked` failed. */
  readonly #uncertain = new Set<Held>();
  readonly #void = new IntervalMap<Revocation>();

  add(held: Held): void {
    const device = deviceStateOf(held.sub.store.file);
    if (device === undefined) {
      this.#uncertain.add(held);
      return;
    }
    this.#deviceOf.set(held, device);
    let mappings = this.#devices.get(device);
    if (mappings === undefined) {
      mappings = { all: new Set(), fresh: new Set(), seen: device.revocations };
      this.#devices.set(device, mappings);
    }
    mappings.all.add(held);
    mappings.fresh.add(held);
  }

  delete(held: Held): void {
    this.#uncertain.delete(held);
    this.#setVoid(held, undefined);
    const device = this.#deviceOf.get(held);
    const mappings = device && this.#devices.get(device);
    if (device === undefined || mappings === undefined) return;
    this.#deviceOf.delete(held);
    mappings.fresh.delete(held);
    mappings.all.delete(held);
    if (mappings.all.size === 0) this.#devices.delete(device);
  }

  /**
   * The void mappings now. The result does not change later.
   *
   * @param ask whether a mapping is void
   */
  update(ask: (held: Held) => RevocationAnswer): IntervalMap<Revocation> {
    const due = [...this.#uncertain];
    for (const [device, mappings] of this.#devices) {
      const { revocations } = device;
      for (const held of revocations === mappings.seen ? mappings.fresh : mappings.all) due.push(held);
      mappings.seen = revocations;
      mappings.fresh.clear();
    }
    for (const held of due) {
      const { error, known } = ask(held);
      if (!known) this.#uncertain.add(held);
      else if (this.#deviceOf.has(held)) this.#uncertain.delete(held);
      this.#setVoid(held, error);
    }
    return this.#void.clone();
  }

  #setVoid(held: Held, error: PeerDmaError | undefined): void {
    const { range } = held;
    const was = this.#void.startingAt(range.start);
    if (was?.held === held) {
      if (was.error.message === error?.message) return;
      this.#void.remove(was);
    }
    if (error !== undefined) this.#void.insert({ range, held, error });
  }
}
