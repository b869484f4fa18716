/**
 * Keeps one target consistent with the flat map: each call maps or unmaps all of a step, or nothing.
 */
import type { AddressRange } from '../address-range.ts';
import { type PeerDmaError, throwIf } from '../errors.ts';
import type { IntervalMap } from '../interval-map.ts';
import { isDevice } from '../memory/backing.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import { Slices } from '../slices.ts';
import { publishMap, publishUnmap } from './events.ts';
import { mapFailed, rollbackFailed } from './mapping-error.ts';
import { type MappingFailure, failureOf } from './mapping-failure.ts';
import { MemoryFilter } from './memory-filter.ts';
import type { PeerPolicy } from './peer-policy.ts';
import type { SubMapping } from './sub-mapping.ts';
import { TargetMappings, type TargetMaps } from './target-mappings.ts';
import type { MapFailure, TargetPort, UnmapOptions } from './target-port.ts';
import { TargetStatus } from './target-status.ts';
import type { PeerToPeer } from './target.ts';

/** A sub-mapping that was unmapped, for {@link DmaMapper.undoUnmap}. @internal */
export interface UnmappedSub {
  readonly sub: SubMapping;
  /** Why the target had not mapped it, if it had not. */
  readonly error: PeerDmaError | undefined;
}

/** @internal */
export class DmaMapper {
  /** The states of sub-mappings in the target. */
  readonly status: TargetStatus;
  readonly #port: TargetPort;
  readonly #filter: MemoryFilter;
  readonly #va: () => VaMapper;
  /** {@link GuestMemory.id}, for events. */
  readonly #memory: number;
  readonly #mappings = new TargetMappings();
  /** `false` from when the target leaves: nothing new is mapped, although a range may stay quarantined. */
  #joined = true;

  /**
   * @param va returns the host view of guest memory, which it makes on first use
   * @param memory {@link GuestMemory.id}
   * @throws {PeerDmaError} as the constructor of {@link MemoryFilter}
   */
  constructor(port: TargetPort, policy: PeerPolicy, va: () => VaMapper, memory: number) {
    this.#port = port;
    this.#va = va;
    this.#memory = memory;
    this.#filter = new MemoryFilter(port, policy);
    this.status = new TargetStatus(port, this.#mappings, this.#filter);
  }

  /** The target object that joined. */
  get target(): object {
    return this.#port.target;
  }

  /** Name of the target when it joined. */
  get name(): string {
    return this.#port.name;
  }

  /** Whether it has to map device memory. */
  get peerToPeer(): PeerToPeer {
    return this.#filter.policy.peerToPeer;
  }

  /** Whether the target has joined and not left. */
  get joined(): boolean {
    return this.#joined;
  }

  /** Stops mapping new memory for the target. */
  leave(): void {
    this.#joined = false;
  }

  /** Whether the target is closed, and all of its mappings with it. */
  get closed(): boolean {
    return this.#port.calls.closed;
  }

  /**
   * Records that the target is closed, and all of its mappings with it. Settles the pending call. Later calls are
   * skipped and count as done.
   */
  markClosed(): void {
    this.#port.calls.close();
  }

  /** Whether the target maps memory for the processors of the guest. */
  get mapsForProcessors(): boolean {
    return this.#port.mapsForProcessors === true;
  }

  /** As {@link TargetPort.suspend}. */
  suspend(): (() => void) | Promise<() => void> {
    return this.#port.suspend?.() ?? (() => {});
  }

  /** Whether the target maps this memory by its host virtual address. */
  usesHostAddress(sub: SubMapping): boolean {
    const { needsVa } = this.#port;
    return (
      !this.#filter.skips(sub) && (needsVa === true || (needsVa === 'private' && sub.memory.private !== undefined))
    );
  }

  /** Whether {@link DmaMapper.map} faults in the host memory that the target maps. */
  get faultsIn(): boolean {
    return this.#port.faultsIn;
  }

  /** Whether the target maps this memory as a file. */
  mapsFile(sub: SubMapping): boolean {
    if (sub.memory.file === undefined || this.#filter.skips(sub) || this.usesHostAddress(sub)) return false;
    return this.#filter.needsFile || this.#port.needsVa === 'private';
  }

  /** As {@link MemoryFilter.needsFile}. */
  get needsFile(): boolean {
    return this.#filter.needsFile;
  }

  /**
   * The IOVAs that the target can map now, if it reports them.
   *
   * @throws {PeerDmaError} when its `iovaRanges` fails
   */
  iovaRanges(): readonly AddressRange[] | undefined {
    return this.closed ? undefined : this.#port.iovaRanges();
  }

  /** As {@link MemoryFilter.refusal}. */
  refusal(sub: SubMapping): PeerDmaError | undefined {
    return this.#filter.refusal(sub);
  }

  /** Whether a change fails when the target cannot map this sub-mapping. */
  requires(sub: SubMapping): boolean {
    return this.#filter.requires(sub);
  }

  /** Returns the target's mappings now, for a later comparison. */
  maps(): TargetMaps {
    const isRevocable = this.#port.isRevoked !== undefined && !this.closed;
    return this.#mappings.snapshot(isRevocable ? (sub) => this.status.revocation(sub) : undefined);
  }

  /** Sub-mappings that the target could not unmap, in order of address. */
  get quarantined(): IntervalMap<MappingFailure> {
    return this.#mappings.quarantined;
  }

  /** Whether no sub-mapping is tracked or quarantined. */
  get isEmpty(): boolean {
    return this.#mappings.isEmpty;
  }

  /** Returns the sub-mappings that the target could not map when they were added, or that were revoked. */
  missingAmong(subs: readonly SubMapping[]): SubMapping[] {
    if (this.#mappings.failedCount === 0 && this.#port.isRevoked === undefined) return [];
    return subs.filter((sub) => this.#mappings.has(sub) && this.status.errorOf(sub) !== undefined);
  }

  /** Returns the sub-mappings of a region that the target failed to map. */
  failedOf(regionId: number): SubMapping[] {
    return [...this.#mappings.failedIn(regionId)];
  }

  /** Returns the tracked device memory that is not skipped, in order of address. */
  deviceMemory(): SubMapping[] {
    const devices = [...this.#mappings.devices].filter((sub) => isDevice(sub.memory) && !this.#filter.skips(sub));
    return devices.sort((a, b) => (a.range.start < b.range.start ? -1 : 1));
  }

  /**
   * Maps all of these or, if it throws, none. Device memory that is not required is recorded as failed instead.
   *
   * @param all an interval map of `subs`, if nothing is tracked yet: it is shared then
   */
  async map(subs: readonly SubMapping[], all?: IntervalMap<SubMapping>): Promise<void> {
    const failed: MappingFailure[] = [];
    const done: SubMapping[][] = [];
    const slices = new Slices();
    for (const unit of await this.#units(subs, slices)) {
      const failure = await this.#mapUnit(unit);
      if (failure === undefined) {
        done.push(unit);
        await slices.turn();
        continue;
      }
      const [first] = unit as [SubMapping];
      if (!this.requires(first) && failure.stillMapped.length === 0) {
        failed.push(failureOf(first, failure.error));
        continue;
      }
      const problems = await this.#unmapUnits(done);
      throw problems.length === 0 ? failure.error : rollbackFailed(failure.error, problems);
    }
    const missing = new Set(failed.map(({ sub }) => sub));
    const isMapped = (sub: SubMapping): boolean => !this.#filter.skips(sub) && !missing.has(sub);
    const pending = this.#mappings.track(subs, isMapped, { failed, all });
    if (pending !== undefined) await pending;
  }

  /** Maps failed and revoked sub-mappings again. If it throws, the rest of them are unchanged. */
  async retry(subs: readonly SubMapping[]): Promise<void> {
    for (const sub of this.missingAmong(subs)) await this.renew(sub);
  }

  /** Unmaps a sub-mapping, if it is mapped, and maps it again. If it throws, the sub-mapping is recorded as failed. */
  async renew(sub: SubMapping): Promise<void> {
    if (!this.#mappings.has(sub)) return;
    await this.unmap([sub]);
    try {
      await this.map([sub]);
    } catch (thrown) {
      this.#record(sub, mapFailed(this.name, sub, thrown));
      throw thrown;
    }
  }

  /**
   * Unmaps all of these or, if it throws, only those that it could not map again.
   *
   * @returns the unmapped sub-mappings, for {@link DmaMapper.undoUnmap}
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`; that range is quarantined from then on. `ERR_ROLLBACK_FAILED`
   */
  async unmap(subs: readonly SubMapping[]): Promise<UnmappedSub[]> {
    const tracked = subs.filter((sub) => this.#mappings.has(sub));
    const [failure] = await this.#unmapMapped(tracked, { afterFailure: 'stop' });
    const end = failure === undefined ? tracked.length : tracked.indexOf(failure.sub);
    const unmapped = tracked.slice(0, end).map((sub) => ({ sub, error: this.#mappings.errorOf(sub) }));
    this.#mappings.remove(unmapped.map(({ sub }) => sub));
    if (failure === undefined) return unmapped;
    const problems = await this.undoUnmap(unmapped, () => undefined);
    throw problems.length === 0 ? failure.error : rollbackFailed(failure.error, problems);
  }

  /**
   * Undoes {@link DmaMapper.unmap} for each sub-mapping. Those that cannot be mapped again are recorded as failed.
   *
   * @param blocked returns why a quarantine prevents mapping the sub-mapping, if one does
   * @returns the errors of those that could not be mapped again
   */
  async undoUnmap(
    unmapped: readonly UnmappedSub[],
    blocked: (sub: SubMapping) => PeerDmaError | undefined,
  ): Promise<PeerDmaError[]> {
    const problems: PeerDmaError[] = [];
    for (const { sub, error } of unmapped) {
      const problem =
        error === undefined && !this.#filter.skips(sub) ? await this.#mapAgain(sub, blocked(sub)) : undefined;
      if (problem !== undefined) problems.push(problem);
      this.#record(sub, error ?? problem);
    }
    return problems;
  }

  /** Undoes {@link DmaMapper.map}. Quarantines mappings that the target cannot unmap. @returns their errors */
  async undoMap(subs: readonly SubMapping[]): Promise<PeerDmaError[]> {
    const tracked = subs.filter((sub) => this.#mappings.has(sub));
    const failures = await this.#unmapMapped(tracked.toReversed(), { afterFailure: 'continue' });
    this.#mappings.remove(tracked.filter((sub) => this.#mappings.has(sub)));
    return failures.map(({ error }) => error);
  }

  /**
   * Unmaps everything. Quarantines mappings that the target cannot unmap.
   *
   * @returns the errors of all quarantined mappings
   */
  async unmapAll(): Promise<PeerDmaError[]> {
    const before = this.#mappings.quarantined.values();
    const tracked = await this.#mappings.valuesInTurns(new Slices());
    const failures = await this.#unmapMapped(tracked.reverse(), { afterFailure: 'continue' });
    this.#mappings.clear();
    return [...before, ...failures].map(({ error }) => error);
  }

  /**
   * Removes all records without a call of the target, whose mappings ended with it.
   *
   * @returns the sub-mappings that were quarantined. The caller releases their memory
   */
  async abandon(): Promise<SubMapping[]> {
    this.leave();
    const slices = new Slices();
    const mapped = await slices.filter(await this.#mappings.valuesInTurns(slices), (sub) => this.#isMapped(sub));
    const quarantined = this.#mappings.clearQuarantine().map(({ sub }) => sub);
    this.#mappings.clear();
    await this.#port.abandon();
    await publishUnmap(this.#memory, this.name, [...mapped, ...quarantined]);
    return quarantined;
  }

  /**
   * Splits sub-mappings into units, in order of address. The target maps all of a unit or none. A sub-mapping that is
   * not required is a unit of its own: if it fails, nothing else has to be unmapped and mapped again.
   *
   * @throws {PeerDmaError} when the target cannot map a required one
   */
  async #units(subs: readonly SubMapping[], slices: Slices): Promise<SubMapping[][]> {
    const units: SubMapping[][] = [];
    let open: SubMapping[] | undefined;
    for (const sub of subs) {
      const turn = slices.step();
      if (turn !== undefined) await turn;
      if (this.#filter.skips(sub)) continue;
      if (!this.requires(sub)) {
        open = undefined;
        units.push([sub]);
        continue;
      }
      throwIf(this.refusal(sub));
      if (open === undefined) units.push((open = [sub]));
      else open.push(sub);
    }
    return units;
  }

  async #mapUnit(unit: readonly SubMapping[]): Promise<MapFailure | undefined> {
    const failure = await this.#port.map(unit, this.#va);
    if (failure === undefined) {
      const published = publishMap(this.#memory, this.name, unit);
      if (published !== undefined) await published;
    } else if (failure.stillMapped.length > 0) {
      this.#mappings.quarantine(failure.stillMapped);
      await publishMap(
        this.#memory,
        this.name,
        failure.stillMapped.map(({ sub }) => sub),
      );
    }
    return failure;
  }

  /**
   * Unmaps units that are not recorded yet, the last first.
   *
   * @returns the errors of those that are quarantined then
   */
  async #unmapUnits(units: readonly SubMapping[][]): Promise<PeerDmaError[]> {
    if (units.length === 0) return [];
    const failures = await this.#unmap(units.flat().reverse(), { afterFailure: 'continue' });
    return failures.map(({ error }) => error);
  }

  /** Unmaps those tracked sub-mappings that are mapped. Quarantines and returns those that the target cannot unmap. */
  async #unmapMapped(tracked: readonly SubMapping[], options: UnmapOptions): Promise<readonly MappingFailure[]> {
    const hasOthers = this.#mappings.failedCount > 0 || this.#mappings.devices.size > 0;
    const allMapped = this.#filter.passesRam && !hasOthers;
    const mapped = allMapped ? tracked : await new Slices().filter(tracked, (sub) => this.#isMapped(sub));
    return this.#unmap(mapped, options);
  }

  async #unmap(subs: readonly SubMapping[], options: UnmapOptions): Promise<readonly MappingFailure[]> {
    if (subs.length === 0) return [];
    const failures = await this.#port.unmap(subs, options);
    if (failures.length === 0) {
      const published = publishUnmap(this.#memory, this.name, subs);
      if (published !== undefined) await published;
      return failures;
    }
    const stillMapped = new Set(failures.map(({ sub }) => sub));
    const end = options.afterFailure === 'continue' ? subs.length : subs.indexOf((failures[0] as MappingFailure).sub);
    this.#mappings.quarantine(failures);
    await publishUnmap(
      this.#memory,
      this.name,
      subs.slice(0, end).filter((sub) => !stillMapped.has(sub)),
    );
    return failures;
  }

  /** Maps one sub-mapping. @returns the error, if it failed */
  async #mapAgain(sub: SubMapping, blocked: PeerDmaError | undefined): Promise<PeerDmaError | undefined> {
    if (blocked !== undefined) return mapFailed(this.name, sub, blocked);
    const failure = await this.#mapUnit([sub]);
    return failure?.error;
  }

  /** Whether the target maps a tracked sub-mapping, revoked or not. */
  #isMapped(sub: SubMapping): boolean {
    return !this.#filter.skips(sub) && this.#mappings.errorOf(sub) === undefined;
  }

  /** Tracks a sub-mapping. @param error why it is not mapped, if it is not */
  #record(sub: SubMapping, error: PeerDmaError | undefined): void {
    if (this.#isQuarantined(sub)) return;
    this.#mappings.track([sub], () => error === undefined && !this.#filter.skips(sub));
    if (error !== undefined) this.#mappings.fail(failureOf(sub, error));
  }

  #isQuarantined(sub: SubMapping): boolean {
    const failure = this.quarantined.startingAt(sub.range.start);
    return failure?.sub === sub;
  }
}
