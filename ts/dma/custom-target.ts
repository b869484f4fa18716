/**
 * Adapts a caller's {@link DmaTarget} to a port. It is called for each sub-mapping, or for each batch if it accepts
 * batches.
 */
import type { AddressRange } from '../address-range.ts';
import { PeerDmaError, asError } from '../errors.ts';
import { type HostMemory, releaseHostMemory } from '../memory/host-memory.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import { Slices, batchesOf } from '../slices.ts';
import { CallGate } from './call-gate.ts';
import { type MappingFailure, failureOf } from './mapping-failure.ts';
import { mapFailed, unmapFailed } from './mapping-error.ts';
import { type SubMapping, mapRequest } from './sub-mapping.ts';
import {
  type MapFailure,
  type MapResult,
  type TargetPort,
  type UnmapOptions,
  type UnmapResult,
  rolledBack,
} from './target-port.ts';
import type { DmaTarget } from './target.ts';
import { type TargetTraits, iovaRangesOf } from './target-traits.ts';

/** @internal */
export class CustomTarget implements TargetPort {
  readonly target: DmaTarget;
  readonly name: string;
  readonly needsVa: TargetTraits['needsVa'];
  readonly mapsForProcessors: boolean;
  readonly accepts: TargetTraits['accepts'];
  readonly faultsIn = false;
  readonly isRevoked: DmaTarget['isRevoked'];
  readonly calls: CallGate = new CallGate();
  readonly #traits: TargetTraits;
  /** The leases of sub-mappings that are mapped, or may be. */
  readonly #leases = new Map<SubMapping, HostMemory>();

  constructor(traits: TargetTraits) {
    this.#traits = traits;
    this.target = traits.target;
    this.name = traits.name;
    this.needsVa = traits.needsVa;
    this.mapsForProcessors = traits.mapsForProcessors;
    this.accepts = traits.accepts;
    this.isRevoked = traits.isRevoked;
  }

  /** @throws {PeerDmaError} when `iovaRanges` of the target fails */
  iovaRanges(): readonly AddressRange[] | undefined {
    return this.calls.closed ? undefined : iovaRangesOf(this.#traits);
  }

  async map(subs: readonly SubMapping[], va: () => VaMapper): Promise<MapResult> {
    const [first] = subs;
    if (first === undefined) return undefined;
    try {
      await this.#lease(subs, va);
    } catch (thrown) {
      return {
        error: mapFailed(this.name, subs.find((sub) => isAbout(thrown, sub)) ?? first, thrown),
        stillMapped: [],
      };
    }
    const { mapDmaBatch } = this.#traits;
    const failure =
      mapDmaBatch === undefined || subs.length === 1
        ? await this.#mapEach(subs)
        : await this.#mapBatches(subs, mapDmaBatch);
    if (failure !== undefined) {
      const stillMapped = new Set(failure.stillMapped.map(({ sub }) => sub));
      await this.#release(subs.filter((sub) => !stillMapped.has(sub)));
    }
    return failure;
  }

  async unmap(subs: readonly SubMapping[], options: UnmapOptions): Promise<UnmapResult> {
    const failures = await this.#unmapEach(subs, options);
    if (this.#leases.size === 0) return failures;
    const stillMapped = new Set(failures.map(({ sub }) => sub));
    const last = options.afterFailure === 'continue' ? undefined : failures[0]?.sub;
    await this.#release(
      (last === undefined ? subs : subs.slice(0, subs.indexOf(last))).filter((sub) => !stillMapped.has(sub)),
    );
    return failures;
  }

  abandon(): Promise<void> {
    return this.#release([...this.#leases.keys()]);
  }

  async #mapEach(subs: readonly SubMapping[]): Promise<MapResult> {
    const slices = new Slices();
    for (const [index, sub] of subs.entries()) {
      try {
        const request = mapRequest(sub, this.#leases.get(sub));
        const pending = this.calls.run(() => this.target.mapDma(request)) ?? slices.step();
        if (pending !== undefined) await pending;
      } catch (thrown) {
        const failure = this.#failureOfBatch([sub], asError(thrown));
        return rolledBack(failure, await this.#unmapEach(subs.slice(0, index).reverse(), { afterFailure: 'continue' }));
      }
    }
    return undefined;
  }

  async #mapBatches(
    subs: readonly SubMapping[],
    mapDmaBatch: NonNullable<DmaTarget['mapDmaBatch']>,
  ): Promise<MapResult> {
    const slices = new Slices();
    let mapped = 0;
    for (const batch of batchesOf(subs)) {
      const failure = await this.#mapBatch(batch, mapDmaBatch);
      if (failure !== undefined) {
        return rolledBack(
          failure,
          await this.#unmapEach(subs.slice(0, mapped).reverse(), { afterFailure: 'continue' }),
        );
      }
      mapped += batch.length;
      await slices.turn();
    }
    return undefined;
  }

  async #mapBatch(subs: readonly SubMapping[], mapDmaBatch: NonNullable<DmaTarget['mapDmaBatch']>): Promise<MapResult> {
    try {
      const pending = this.calls.run(() => mapDmaBatch(subs.map((sub) => mapRequest(sub, this.#leases.get(sub)))));
      if (pending !== undefined) await pending;
      return undefined;
    } catch (caught) {
      return this.#failureOfBatch(subs, asError(caught));
    }
  }

  #failureOfBatch(subs: readonly SubMapping[], thrown: Error): MapFailure {
    const sub = subs.find((one) => isAbout(thrown, one)) ?? (subs[0] as SubMapping);
    if (!(thrown instanceof PeerDmaError && thrown.code === 'ERR_UNMAP_FAILED')) {
      return { error: mapFailed(this.name, sub, thrown), stillMapped: [] };
    }
    // The target failed to undo the requests and does not report which mappings remain: any of them may.
    const stillMapped = subs.map((one) => failureOf(one, unmapFailed(this.name, one, thrown)));
    return { error: unmapFailed(this.name, sub, thrown), stillMapped };
  }

  async #unmapEach(subs: readonly SubMapping[], { afterFailure }: UnmapOptions): Promise<UnmapResult> {
    const failures: MappingFailure[] = [];
    const slices = new Slices();
    for (const sub of subs) {
      try {
        const pending = this.calls.run(() => this.target.unmapDma(sub.range)) ?? slices.step();
        if (pending !== undefined) await pending;
      } catch (thrown) {
        failures.push(failureOf(sub, unmapFailed(this.name, sub, thrown)));
        if (afterFailure === 'stop') break;
      }
    }
    return failures;
  }

  /**
   * Leases the memory that the target needs as host memory, all or none.
   *
   * @throws {PeerDmaError} as {@link VaMapper.lease}
   */
  async #lease(subs: readonly SubMapping[], va: () => VaMapper): Promise<void> {
    if (this.needsVa === false) return;
    const leased = this.needsVa === true ? subs : subs.filter(({ memory }) => memory.private !== undefined);
    if (leased.length === 0) return;
    const slices = new Slices();
    let count = 0;
    try {
      for (const batch of batchesOf(leased)) {
        const memories = va().lease(batch);
        for (const [index, sub] of batch.entries()) this.#leases.set(sub, memories[index] as HostMemory);
        count += batch.length;
        const turn = slices.turn();
        if (turn !== undefined) await turn;
      }
    } catch (error) {
      await this.#release(leased.slice(0, count));
      throw error;
    }
  }

  async #release(subs: readonly SubMapping[]): Promise<void> {
    const slices = new Slices();
    for (const batch of batchesOf(subs)) {
      const leased: HostMemory[] = [];
      for (const sub of batch) {
        const memory = this.#leases.get(sub);
        if (memory === undefined) continue;
        leased.push(memory);
        this.#leases.delete(sub);
      }
      releaseHostMemory(leased);
      const turn = slices.turn();
      if (turn !== undefined) await turn;
    }
  }
}

/** Whether an error of a target names the range of a sub-mapping. */
function isAbout(thrown: unknown, { range }: SubMapping): boolean {
  return thrown instanceof PeerDmaError && thrown.range?.start === range.start && thrown.range.end === range.end;
}
