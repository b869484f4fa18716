/**
 * Keeps one target in agreement with the flat map: each call maps or unmaps all of a step, or nothing.
 */
import type { AddressRange } from '../address-range.ts';
import { type PeerDmaError, throwIf } from '../errors.ts';
import type { IntervalMap } from '../interval-map.ts';
import { isDevice } from '../memory/backing.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import { Slices } from '../slices.ts';
import { publishMap, publishUnmap } from './events.ts';
import { fileRequired, mapFailed, rollbackFailed } from './mapping-error.ts';
import { type MappingFailure, failureOf } from './mapping-failure.ts';
import type { SubMapping } from './sub-mapping.ts';
import { TargetMappings, type TargetMaps } from './target-mappings.ts';
import type { BatchFailure, TargetPort } from './target-port.ts';
import { TargetStatus } from './target-status.ts';
import type { PeerToPeer } from './target.ts';

/** A sub-mapping that was unmapped, for {@link DmaMapper.restore}. @internal */
export interface UnmappedSub {
  readonly sub: SubMapping;
  /** Why the target did not have it, if it did not. */
  readonly error: PeerDmaError | undefined;
}

/** @internal */
export class DmaMapper {
  readonly peerToPeer: PeerToPeer;
  /** How sub-mappings stand with the target. */
  readonly status: TargetStatus;
  readonly #port: TargetPort;
  readonly #va: () => VaMapper;
  /** Number of the guest memory, for events. */
  readonly #memory: number;
  readonly #mappings = new TargetMappings();
  /** Ends when the target is to leave: nothing new is mapped, though a range may stay in quarantine. */
  #following = true;

  /**
   * @param va makes the host view of guest memory, if there is none yet
   * @param memory number of the guest memory
   */
  constructor(port: TargetPort, peerToPeer: PeerToPeer, va: () => VaMapper, memory: number) {
    this.#port = port;
    this.#va = va;
    this.#memory = memory;
    this.peerToPeer = peerToPeer;
    this.status = new TargetStatus(port, this.#mappings, (sub) => this.#skips(sub));
  }

  /** Who joined. */
  get target(): object {
    return this.#port.target;
  }

  /** Of the target, as it was when it joined. */
  get name(): string {
    return this.#port.name;
  }

  get following(): boolean {
    return this.#following;
  }

  /** The target gets nothing new from now on. */
  stopFollowing(): void {
    this.#following = false;
  }

  /** Whether the target and all that it mapped are gone. */
  get closed(): boolean {
    return this.#port.calls.closed;
  }

  /**
   * Records that the target is closed, and all of its mappings with it. Settles the pending call. Later calls count as
   * done and are not made.
   */
  markClosed(): void {
    this.#port.calls.close();
  }

  /** Whether the target maps this memory by its host virtual address. */
  wantsVa(sub: SubMapping): boolean {
    const { needsVa } = this.#port;
    return !this.#skips(sub) && (needsVa === true || (needsVa === 'private' && sub.store.private !== undefined));
  }

  /** Whether {@link DmaMapper.map} faults in the host memory that the target maps. */
  get faultsIn(): boolean {
    return this.#port.faultsIn;
  }

  /** Whether the target maps this memory as the file that it is. */
  mapsFile(sub: SubMapping): boolean {
    if (sub.store.file === undefined || this.#skips(sub) || this.wantsVa(sub)) return false;
    return this.#port.needsFile || this.#port.needsVa === 'private';
  }

  /** Whether the target maps files only, so that {@link DmaMapper.refusal} may return an error. */
  get needsFile(): boolean {
    return this.#port.needsFile;
  }

  /** The IOVAs that the target can map now, if it reports them. @throws {PeerDmaError} when its `iovaRanges` fails */
  iovaRanges(): readonly AddressRange[] | undefined {
    return this.closed ? undefined : this.#port.iovaRanges();
  }

  /** Why the target can't map a sub-mapping at any address, if that is known without a call of the target. */
  refusal(sub: SubMapping): PeerDmaError | undefined {
    const needsFile = sub.store.file === undefined && this.#port.needsFile && !this.#skips(sub);
    return needsFile ? fileRequired(this.name, sub) : undefined;
  }

  /** Whether a change fails that can't map a sub-mapping to the target. */
  requires(sub: SubMapping): boolean {
    return sub.kind === 'ram' || this.peerToPeer === 'required';
  }

  /** What the target has now, for a later comparison. */
  maps(): TargetMaps {
    const asks = this.#port.isRevoked !== undefined && !this.closed;
    return this.#mappings.snapshot(asks ? (sub) => this.status.revocation(sub) : undefined);
  }

  /** What the target could not unmap, in order of address. */
  get quarantined(): IntervalMap<MappingFailure> {
    return this.#mappings.quarantined;
  }

  /** Whether the target was given nothing, and nothing is quarantined. */
  get isEmpty(): boolean {
    return this.#mappings.isEmpty;
  }

  /** Those of the sub-mappings that the target could not map when they were added, or that are revoked since. */
  missingAmong(subs: readonly SubMapping[]): SubMapping[] {
    if (this.#mappings.failedCount === 0 && this.#port.isRevoked === undefined) return [];
    return subs.filter((sub) => this.#mappings.has(sub) && this.status.errorOf(sub) !== undefined);
  }

  /** The sub-mappings of a region that the target failed to map. */
  failedOf(regionId: number): SubMapping[] {
    return [...this.#mappings.failedIn(regionId)];
  }

  /** The device memory that the target was given and does not skip, in order of address. */
  deviceMemory(): SubMapping[] {
    const devices = [...this.#mappings.devices].filter((sub) => isDevice(sub.store) && !this.#skips(sub));
    return devices.sort((a, b) => (a.range.start < b.range.start ? -1 : 1));
  }

  /**
   * Maps all of these or, if it throws, none. Device memory that the policy lets the target miss is recorded instead.
   *
   * @param all a map of `subs`, if the target has nothing yet: it is shared then
   */
  async map(subs: readonly SubMapping[], all?: IntervalMap<SubMapping>): Promise<void> {
    const failed: MappingFailure[] = [];
    const done: SubMapping[][] = [];
    const slices = new Slices();
    const runs = this.#runs(subs, failed);
    await slices.turn();
    for (const run of runs) {
      const failure = await this.#mapRun(run);
      if (failure === undefined) {
        done.push(run);
        await slices.turn();
        continue;
      }
      const [first] = run as [SubMapping];
      if (!this.requires(first) && failure.stuck.length === 0) {
        failed.push(failureOf(first, failure.error));
        continue;
      }
      const problems = await this.#unmapRuns(done);
      throw problems.length === 0 ? failure.error : rollbackFailed(failure.error, problems);
    }
    await slices.turn();
    const missing = new Set(failed.map(({ sub }) => sub));
    this.#mappings.give(subs, (sub) => !this.#skips(sub) && !missing.has(sub), all);
    for (const failure of failed) this.#mappings.fail(failure);
  }

  /** Maps what has failed before, or is revoked. If it throws, those not reached yet are as they were. */
  async retry(subs: readonly SubMapping[]): Promise<void> {
    for (const sub of this.missingAmong(subs)) await this.renew(sub);
  }

  /** Maps a sub-mapping anew, however it stood before. If it throws, it is recorded as failed. */
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
   * Unmaps all of these or, if it throws, none but those it then could not map again.
   *
   * @returns what was unmapped, for {@link DmaMapper.restore}
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`; that range is quarantined from now on. `ERR_ROLLBACK_FAILED`
   */
  async unmap(subs: readonly SubMapping[]): Promise<UnmappedSub[]> {
    const given = subs.filter((sub) => this.#mappings.has(sub));
    const [stuck] = await this.#unmapMapped(given, false);
    const end = stuck === undefined ? given.length : given.indexOf(stuck.sub);
    const gone = given.slice(0, end).map((sub) => ({ sub, error: this.#mappings.errorOf(sub) }));
    this.#mappings.remove(gone.map(({ sub }) => sub));
    if (stuck === undefined) return gone;
    const problems = await this.restore(gone, () => undefined);
    throw problems.length === 0 ? stuck.error : rollbackFailed(stuck.error, problems);
  }

  /**
   * Undoes {@link DmaMapper.unmap}, each by itself. What can't be mapped again is recorded as failed and returned.
   *
   * @param blocked why a quarantine keeps the target from mapping the sub-mapping, if one does
   */
  async restore(
    gone: readonly UnmappedSub[],
    blocked: (sub: SubMapping) => PeerDmaError | undefined,
  ): Promise<PeerDmaError[]> {
    const problems: PeerDmaError[] = [];
    for (const { sub, error } of gone) {
      const problem = error === undefined && !this.#skips(sub) ? await this.#mapAgain(sub, blocked(sub)) : undefined;
      if (problem !== undefined) problems.push(problem);
      this.#record(sub, error ?? problem);
    }
    return problems;
  }

  /** Undoes {@link DmaMapper.map}. What the target can't unmap is quarantined and returned. */
  async withdraw(subs: readonly SubMapping[]): Promise<PeerDmaError[]> {
    const given = subs.filter((sub) => this.#mappings.has(sub));
    const failures = await this.#unmapMapped(given.toReversed(), true);
    this.#mappings.remove(given.filter((sub) => this.#mappings.has(sub)));
    return failures.map(({ error }) => error);
  }

  /** Unmaps everything. What the target can't unmap is quarantined and returned. */
  async withdrawAll(): Promise<PeerDmaError[]> {
    const before = this.#mappings.quarantined.values();
    const failures = await this.#unmapMapped(this.#mappings.values().reverse(), true);
    this.#mappings.clear();
    return [...before, ...failures].map(({ error }) => error);
  }

  /**
   * Forgets everything without a call of the target: its mappings are gone with it.
   *
   * @returns what was quarantined
   */
  abandon(): SubMapping[] {
    const mapped = this.#mappings.values().filter((sub) => this.#isMapped(sub));
    const quarantined = this.#mappings.clearQuarantine().map(({ sub }) => sub);
    this.#mappings.clear();
    this.#port.abandon();
    publishUnmap(this.#memory, this.name, [...mapped, ...quarantined]);
    return quarantined;
  }

  /**
   * What the target maps in one call each, in order of address. What it may miss is mapped alone: if that fails,
   * nothing else has to be unmapped and mapped again.
   *
   * @param failed gets what the target may miss and can't map
   * @throws {PeerDmaError} when it can't map what it requires
   */
  #runs(subs: readonly SubMapping[], failed: MappingFailure[]): SubMapping[][] {
    const runs: SubMapping[][] = [];
    let open: SubMapping[] | undefined;
    for (const sub of subs) {
      if (this.#skips(sub)) continue;
      const refusal = this.refusal(sub);
      if (!this.requires(sub)) {
        open = undefined;
        if (refusal === undefined) runs.push([sub]);
        else failed.push(failureOf(sub, refusal));
        continue;
      }
      throwIf(refusal);
      if (open === undefined) runs.push((open = [sub]));
      else open.push(sub);
    }
    return runs;
  }

  async #mapRun(run: readonly SubMapping[]): Promise<BatchFailure | undefined> {
    const failure = await this.#port.map(run, this.#va);
    if (failure === undefined) {
      publishMap(this.#memory, this.name, run);
    } else if (failure.stuck.length > 0) {
      publishMap(
        this.#memory,
        this.name,
        failure.stuck.map(({ sub }) => sub),
      );
      this.#mappings.quarantine(failure.stuck);
    }
    return failure;
  }

  /** Unmaps what was mapped and is not recorded yet, the last first. @returns why not, for what is quarantined then */
  async #unmapRuns(runs: readonly SubMapping[][]): Promise<PeerDmaError[]> {
    if (runs.length === 0) return [];
    const failures = await this.#unmap(runs.flat().reverse(), true);
    return failures.map(({ error }) => error);
  }

  /** Unmaps those of the given sub-mappings that the target has; what it can't unmap is quarantined and returned. */
  #unmapMapped(given: readonly SubMapping[], all: boolean): Promise<readonly MappingFailure[]> {
    const allMapped = this.#mappings.failedCount === 0 && this.peerToPeer !== 'off';
    return this.#unmap(allMapped ? given : given.filter((sub) => this.#isMapped(sub)), all);
  }

  async #unmap(subs: readonly SubMapping[], all: boolean): Promise<readonly MappingFailure[]> {
    if (subs.length === 0) return [];
    const failures = await this.#port.unmap(subs, all);
    if (failures.length === 0) {
      publishUnmap(this.#memory, this.name, subs);
      return failures;
    }
    const stuck = new Set(failures.map(({ sub }) => sub));
    const end = all ? subs.length : subs.indexOf((failures[0] as MappingFailure).sub);
    publishUnmap(
      this.#memory,
      this.name,
      subs.slice(0, end).filter((sub) => !stuck.has(sub)),
    );
    this.#mappings.quarantine(failures);
    return failures;
  }

  /** Maps one sub-mapping. @returns why not */
  async #mapAgain(sub: SubMapping, blocked: PeerDmaError | undefined): Promise<PeerDmaError | undefined> {
    if (blocked !== undefined) return mapFailed(this.name, sub, blocked);
    const failure = await this.#mapRun([sub]);
    return failure?.error;
  }

  /** Whether the target has a given sub-mapping, revoked or not. */
  #isMapped(sub: SubMapping): boolean {
    return !this.#skips(sub) && this.#mappings.errorOf(sub) === undefined;
  }

  /** Records a sub-mapping as given. @param error why the target does not have it, if it does not */
  #record(sub: SubMapping, error: PeerDmaError | undefined): void {
    if (this.#isQuarantined(sub)) return;
    this.#mappings.give([sub], () => error === undefined && !this.#skips(sub));
    if (error !== undefined) this.#mappings.fail(failureOf(sub, error));
  }

  #isQuarantined(sub: SubMapping): boolean {
    const failure = this.quarantined.startingAt(sub.range.start);
    return failure?.sub === sub;
  }

  /** Whether the policy keeps a sub-mapping from the target. */
  #skips(sub: SubMapping): boolean {
    return sub.kind === 'device' && this.peerToPeer === 'off';
  }
}
