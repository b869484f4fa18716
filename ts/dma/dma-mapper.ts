/**
 * Knows what one target holds, and changes it: all of a step or nothing.
 */
import type { AddressRange } from '../address-range.ts';
import { PeerDmaError, asError } from '../errors.ts';
import { type Held, type HeldRecords, Holdings } from './holdings.ts';
import { Leases } from './leases.ts';
import { isDevice } from '../memory/backing.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import { fileRequired, mapFailed, rollbackFailed, statusOf, unmapFailed } from './mapping-error.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { DmaTarget, MappingStatus, PeerToPeer } from './target.ts';
import { TargetCalls } from './target-calls.ts';
import type { TargetTraits } from './target-traits.ts';

/** @internal */
export class DmaMapper {
  readonly peerToPeer: PeerToPeer;
  readonly #traits: TargetTraits;
  readonly #calls: TargetCalls;
  readonly #leases: Leases;
  readonly #holdings = new Holdings();
  /** Ends when the target is to go: if a range stays behind in quarantine, nothing new joins it. */
  #following = true;

  /**
   * @param va makes this process's view of guest memory, if there is none yet
   * @param memory number of the guest memory
   */
  constructor(traits: TargetTraits, peerToPeer: PeerToPeer, va: () => VaMapper, memory: number) {
    this.#traits = traits;
    this.#calls = new TargetCalls(traits, memory);
    this.peerToPeer = peerToPeer;
    this.#leases = new Leases(va, (sub) => this.wantsVa(sub));
  }

  get target(): DmaTarget {
    return this.#traits.target;
  }

  /** Of the target, as it was when it joined. */
  get name(): string {
    return this.#traits.name;
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
    return this.#calls.closed;
  }

  /**
   * Records that the target is closed, and all of its mappings with it. Settles the call that is under way. Later calls
   * count as done and are not made.
   */
  markClosed(): void {
    this.#calls.close();
  }

  /** Whether the target gets this memory by its place in this process. */
  wantsVa(sub: SubMapping): boolean {
    const { needsVa } = this.#traits;
    return !this.#skips(sub) && (needsVa === true || (needsVa === 'private' && sub.store.private !== undefined));
  }

  /** Whether the target maps this memory as the file that it is. */
  mapsFile(sub: SubMapping): boolean {
    if (sub.store.file === undefined || this.#skips(sub) || this.wantsVa(sub)) return false;
    return this.#traits.needsFile || this.#traits.needsVa === 'private';
  }

  /** The IOVAs that the target can map now, if it reports them. @throws {PeerDmaError} when its `iovaRanges` fails */
  iovaRanges(): readonly AddressRange[] | undefined {
    return this.#calls.iovaRanges();
  }

  /** Why the target can't map a sub-mapping at any address, if that is known without a call of the target. */
  refusal(sub: SubMapping): PeerDmaError | undefined {
    const needsFile = sub.store.file === undefined && this.#traits.needsFile && !this.#skips(sub);
    return needsFile ? fileRequired(this.name, sub) : undefined;
  }

  status(): MappingStatus[] {
    return this.#holdings.all().map((held) => this.statusOf(held));
  }

  /** The records that share an address with the range, in order of address, those in quarantine included. */
  heldIn(range: AddressRange): Held[] {
    return this.#holdings.overlapping(range);
  }

  /** The records of all sub-mappings now, for a later comparison. */
  records(): HeldRecords {
    const asks = this.#traits.isRevoked !== undefined && !this.closed;
    return this.#holdings.records(asks ? (held) => this.#calls.revocation(held) : undefined);
  }

  /** How one sub-mapping stands, for people. */
  statusOf(held: Held): MappingStatus {
    return this.statusThen(held, this.#revocation(held));
  }

  /** How one sub-mapping stood. @param revocation why it was void, if it was */
  statusThen({ sub, state, error }: Held, revocation: PeerDmaError | undefined): MappingStatus {
    const { range, kind, name } = sub;
    return { range, kind, name, state: revocation === undefined ? state : 'failed', ...statusOf(revocation ?? error) };
  }

  /** The record of a sub-mapping that is not in quarantine. */
  held(sub: SubMapping): Held | undefined {
    return this.#holdings.of(sub);
  }

  /** What the target would not unmap. */
  get quarantined(): ReadonlySet<Held> {
    return this.#holdings.quarantined;
  }

  /** Those of the sub-mappings that the target could not map when they came, or that are void since. */
  missingAmong(subs: readonly SubMapping[]): SubMapping[] {
    const failed = this.#holdings.failed;
    if (failed.size === 0 && this.#traits.isRevoked === undefined) return [];
    return subs.filter((sub) => {
      const held = this.#holdings.of(sub);
      return held !== undefined && (failed.has(held) || this.#revocation(held) !== undefined);
    });
  }

  /** The sub-mappings of a region that the target failed to map. */
  failedOf(regionId: number): SubMapping[] {
    return [...this.#holdings.failed.of(regionId)].map(({ sub }) => sub);
  }

  /** What the target has of device memory or keeps of it, in order of address; what it was not to have is not in it. */
  deviceMemory(): Held[] {
    const held = [...this.#holdings.device].filter(({ state }) => state !== 'skipped');
    // What failed because of a quarantine of the same range is told with it.
    const kept = [...this.quarantined].filter(({ range }) => !held.some((one) => one.range.equals(range)));
    const all = [...held, ...kept].filter(({ sub }) => isDevice(sub.store));
    return all.sort((a, b) => (a.range.start < b.range.start ? -1 : 1));
  }

  /**
   * Maps all of these or, if it throws, none. Device memory that the policy lets the target miss is recorded instead.
   */
  async map(subs: readonly SubMapping[]): Promise<void> {
    const records = subs.map((sub) => this.#admit(sub));
    const wanted = records.filter((held) => held.state === 'mapped');
    this.#leases.lease(wanted.filter(({ sub }) => this.requires(sub)));
    const done: Held[] = [];
    for (const run of this.#runs(wanted)) {
      const error = await this.#mapRun(run);
      if (error === undefined) {
        for (const held of run) done.push(held); // those that failed are not asked to go
        continue;
      }
      const kept = new Set(done);
      this.#leases.release(wanted.filter((held) => !kept.has(held) && held.state !== 'quarantined'));
      const problems = await this.#withdrawHeld(done);
      throw problems.length === 0 ? error : rollbackFailed(error, problems);
    }
    for (const held of records) this.#holdings.record(held);
    this.#leases.release(wanted.filter((held) => held.state !== 'mapped'));
  }

  /** Maps what has failed before, or is void. If it throws, those that it had not come to are as they were. */
  async tryAgain(subs: readonly SubMapping[]): Promise<void> {
    for (const sub of this.missingAmong(subs)) await this.renew(sub);
  }

  /** Maps a sub-mapping anew, whatever became of it before. If it throws, it is missing. */
  async renew(sub: SubMapping): Promise<void> {
    const held = this.#holdings.of(sub);
    if (held === undefined) return;
    const error = await this.#unmapOne(held);
    if (error !== undefined) throw error;
    this.#leases.release([held]);
    try {
      await this.map([sub]);
    } catch (thrown) {
      this.#holdings.record({ range: sub.range, sub, state: 'failed', error: mapFailed(this.name, sub, thrown) });
      throw thrown;
    }
  }

  /**
   * Unmaps all of these or, if it throws, none but those it then could not map again.
   *
   * @returns what was held, for {@link DmaMapper.restore}
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`; that range is quarantined from now on. `ERR_ROLLBACK_FAILED`
   */
  async unmap(subs: readonly SubMapping[]): Promise<Held[]> {
    const gone: Held[] = [];
    for (const sub of subs) {
      const held = this.#holdings.of(sub);
      if (held === undefined) continue;
      const error = await this.#unmapOne(held);
      if (error === undefined) {
        gone.push(held);
        continue;
      }
      this.#leases.release(gone);
      const problems = await this.restore(gone, () => undefined);
      throw problems.length === 0 ? error : rollbackFailed(error, problems);
    }
    this.#leases.release(gone);
    return gone;
  }

  /**
   * Undoes {@link DmaMapper.unmap} as far as it goes; what can't be mapped again is recorded as failed and returned.
   *
   * @param blocked why a quarantine keeps the target from having the sub-mapping, if it does
   */
  async restore(
    gone: readonly Held[],
    blocked: (sub: SubMapping) => PeerDmaError | undefined,
  ): Promise<PeerDmaError[]> {
    const problems: PeerDmaError[] = [];
    for (const { sub, state, error } of gone) {
      const held: Held = { range: sub.range, sub, state };
      if (error !== undefined) held.error = error;
      if (state === 'mapped') await this.#mapAgain(held, blocked(sub));
      if (held.state === 'failed' && state === 'mapped' && held.error !== undefined) problems.push(held.error);
      this.#holdings.record(held);
    }
    return problems;
  }

  /** Undoes {@link DmaMapper.map}; what the target won't give up is quarantined and returned. */
  async withdraw(subs: readonly SubMapping[]): Promise<PeerDmaError[]> {
    const held = subs.map((sub) => this.#holdings.of(sub));
    return this.#withdrawHeld(held.filter((one) => one !== undefined));
  }

  /** Unmaps all that is held; what the target won't give up is quarantined and returned. */
  async withdrawAll(): Promise<PeerDmaError[]> {
    const before = [...this.quarantined].flatMap(({ error }) => error ?? []);
    return [...before, ...(await this.#withdrawHeld(this.#holdings.values()))];
  }

  /**
   * Forgets everything without asking the target: its mappings are gone with it.
   *
   * @returns what was quarantined
   */
  abandon(): SubMapping[] {
    const kept = [...this.quarantined].map(({ sub }) => sub);
    const all = this.#holdings.clear();
    this.#leases.release(all);
    for (const { sub, state } of all) {
      if (state === 'mapped' || state === 'quarantined') this.#calls.publishUnmap(sub);
    }
    return kept;
  }

  /** Decides what is to happen with a sub-mapping before the target is asked. */
  #admit(sub: SubMapping): Held {
    const held: Held = { range: sub.range, sub, state: this.#skips(sub) ? 'skipped' : 'mapped' };
    const error = this.refusal(sub);
    if (error === undefined) return held;
    if (this.requires(sub)) throw error;
    held.state = 'failed';
    held.error = error;
    return held;
  }

  /** Whether the policy keeps a sub-mapping from the target. */
  #skips(sub: SubMapping): boolean {
    return sub.kind === 'device' && this.peerToPeer === 'off';
  }

  /** Whether the target has to have a sub-mapping: a change fails that can't give it to it. */
  requires(sub: SubMapping): boolean {
    return sub.kind === 'ram' || this.peerToPeer === 'required';
  }

  /**
   * What goes to the target in one call, in order of address. What may be missed goes alone: if it fails, nothing else has
   * to be unmapped and mapped again.
   */
  #runs(wanted: readonly Held[]): Held[][] {
    const runs: Held[][] = [];
    let open: Held[] | undefined;
    for (const held of wanted) {
      if (this.#traits.mapDmaBatch === undefined || !this.requires(held.sub)) {
        runs.push([held]);
        open = undefined;
      } else if (open === undefined) {
        runs.push((open = [held]));
      } else {
        open.push(held);
      }
    }
    return runs;
  }

  /** Maps all of a run, or none and says why. One that may be missed is recorded as failed instead. */
  async #mapRun(run: readonly Held[]): Promise<PeerDmaError | undefined> {
    const [first] = run as readonly [Held];
    try {
      if (run.length === 1) {
        if (!this.requires(first.sub)) this.#leases.lease([first]);
        await this.#calls.map(first);
      } else {
        await this.#calls.mapBatch(run);
      }
      return undefined;
    } catch (caught) {
      const thrown = asError(caught);
      const { sub } = run.find((held) => isAbout(thrown, held)) ?? first;
      if (run.length > 1 && thrown instanceof PeerDmaError && thrown.code === 'ERR_UNMAP_FAILED') {
        // The target could not take back what it had mapped, and doesn't say what is left: all of it may be.
        for (const held of run) {
          this.#calls.publishMap(held.sub);
          this.#holdings.quarantine(held, unmapFailed(this.name, held.sub, thrown));
        }
        return unmapFailed(this.name, sub, thrown);
      }
      const error = mapFailed(this.name, sub, thrown);
      if (this.requires(first.sub)) return error;
      first.state = 'failed';
      first.error = error;
      return undefined;
    }
  }

  /**
   * Why a mapping is void, if it is. If `isRevoked` throws, the mapping counts as void. Nothing revokes RAM, so
   * `isRevoked` is called for device memory only.
   */
  #revocation(held: Held): PeerDmaError | undefined {
    return this.#holdings.canBeVoid(held) ? this.#calls.revocation(held).error : undefined;
  }

  async #mapAgain(held: Held, blocked: PeerDmaError | undefined): Promise<void> {
    try {
      if (blocked !== undefined) throw blocked;
      this.#leases.lease([held]);
      await this.#calls.map(held);
    } catch (thrown) {
      this.#leases.release([held]);
      held.state = 'failed';
      held.error = mapFailed(this.name, held.sub, thrown);
    }
  }

  /** Takes these away from the target, the last first; what it won't give up is quarantined and returned. */
  async #withdrawHeld(helds: readonly Held[]): Promise<PeerDmaError[]> {
    const problems: PeerDmaError[] = [];
    const gone: Held[] = [];
    for (const held of helds.toReversed()) {
      const error = await this.#unmapOne(held);
      if (error === undefined) gone.push(held);
      else problems.push(error);
    }
    this.#leases.release(gone);
    return problems;
  }

  /** Takes one away from the target and forgets it, or quarantines it and says why. Its memory is still on loan. */
  async #unmapOne(held: Held): Promise<PeerDmaError | undefined> {
    if (held.state === 'mapped') {
      try {
        const pending = this.#calls.unmap(held);
        if (pending !== undefined) await pending;
      } catch (thrown) {
        const error = unmapFailed(this.name, held.sub, thrown);
        this.#holdings.quarantine(held, error);
        return error;
      }
    }
    this.#holdings.forget(held);
    return undefined;
  }
}

/** Whether what a target threw names the range of a sub-mapping. */
function isAbout(thrown: unknown, { range }: Held): boolean {
  return thrown instanceof PeerDmaError && thrown.range?.start === range.start && thrown.range.end === range.end;
}
