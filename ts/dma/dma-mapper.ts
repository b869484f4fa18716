/**
 * Knows what one target holds, and changes it: all of a step or nothing.
 */
import type { AddressRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { publishMap, publishUnmap } from './events.ts';
import { IntervalMap } from '../interval-map.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import { fileRequired, mapFailed, rollbackFailed, statusOf, unmapFailed } from './mapping-error.ts';
import { type SubMapping, mapRequest } from './sub-mapping.ts';
import type { DmaTarget, MappingStatus, PeerToPeer } from './target.ts';

/** One sub-mapping as it stands with the target. @internal */
export interface Held {
  readonly range: AddressRange;
  readonly sub: SubMapping;
  state: MappingStatus['state'];
  /** The loan of the memory, as long as the target has it mapped or may have. */
  hostMemory?: HostMemory | undefined;
  error?: PeerDmaError;
}

/** @internal */
export class DmaMapper {
  readonly target: DmaTarget;
  readonly #peerToPeer: PeerToPeer;
  /** Of the target, as it was when it joined. */
  readonly name: string;
  readonly #held = new IntervalMap<Held>();
  readonly #failed = new Set<Held>();
  #quarantined = 0;
  /** Ends when the target is to go: if a range stays behind in quarantine, nothing new joins it. */
  #following = true;

  constructor(target: DmaTarget, peerToPeer: PeerToPeer) {
    this.target = target;
    this.name = target.name;
    this.#peerToPeer = peerToPeer;
  }

  get following(): boolean {
    return this.#following;
  }

  /** The target gets nothing new from now on. */
  stopFollowing(): void {
    this.#following = false;
  }

  get needsVa(): boolean {
    return this.target.needsVa === true;
  }

  status(): MappingStatus[] {
    return this.#held.values().map(({ sub, state, error }) => {
      const { range, kind, name } = sub;
      return { range, kind, name, state, ...statusOf(error) };
    });
  }

  /** The first range here that could not be unmapped and shares an address with the given one. */
  quarantinedIn(range: AddressRange): Held | undefined {
    if (this.#quarantined === 0) return undefined;
    return this.#held.overlapping(range).find((held) => held.state === 'quarantined');
  }

  /**
   * Maps all of these or, if it throws, none. Device memory that the policy lets the target miss is recorded instead.
   *
   * @param va where the memory is, for a target that needs host memory
   */
  async map(subs: readonly SubMapping[], va: VaMapper | undefined): Promise<void> {
    const records = subs.map((sub) => this.#admit(sub));
    const wanted = records.filter((held) => held.state === 'mapped');
    this.#lend(wanted, va);
    const done: Held[] = [];
    for (const run of this.#runs(wanted)) {
      const error = await this.#mapRun(run);
      if (error === undefined) {
        for (const held of run) if (held.state === 'mapped') done.push(held);
        continue;
      }
      const kept = new Set(done);
      this.#giveBack(
        wanted.filter((held) => !kept.has(held) && held.state !== 'quarantined'),
        va,
      );
      const problems = await this.#withdrawHeld(done, va);
      throw problems.length === 0 ? error : rollbackFailed(error, problems);
    }
    for (const held of records) this.#record(held);
    this.#giveBack(
      wanted.filter((held) => held.state !== 'mapped'),
      va,
    );
  }

  /** Those of the sub-mappings that the target could not map when they came. */
  failedAmong(subs: readonly SubMapping[]): SubMapping[] {
    if (this.#failed.size === 0) return [];
    const failed = new Set([...this.#failed].map((held) => held.sub));
    return subs.filter((sub) => failed.has(sub));
  }

  /** Maps what has failed before. If it throws, those that it had not come to are as they were. */
  async tryAgain(subs: readonly SubMapping[], va: VaMapper | undefined): Promise<void> {
    for (const sub of subs) {
      const held = this.#held.startingAt(sub.range.start);
      if (held?.state !== 'failed' || held.sub !== sub) continue;
      this.#forget(held);
      try {
        await this.map([sub], va);
      } catch (error) {
        if (this.#held.startingAt(sub.range.start) === undefined) this.#record(held);
        throw error;
      }
    }
  }

  /**
   * Unmaps all of these or, if it throws, none but those it then could not map again.
   *
   * @returns what was held, for {@link DmaMapper.restore}
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`; that range is quarantined from now on. `ERR_ROLLBACK_FAILED`
   */
  async unmap(subs: readonly SubMapping[], va: VaMapper | undefined): Promise<Held[]> {
    const gone: Held[] = [];
    for (const sub of subs) {
      const held = this.#held.startingAt(sub.range.start);
      if (held === undefined) continue;
      const error = await this.#unmapOne(held);
      if (error === undefined) {
        gone.push(held);
        continue;
      }
      this.#giveBack(gone, va);
      const problems = await this.restore(gone, va, () => undefined);
      throw problems.length === 0 ? error : rollbackFailed(error, problems);
    }
    this.#giveBack(gone, va);
    return gone;
  }

  /**
   * Undoes {@link DmaMapper.unmap} as far as it goes; what can't be mapped again is recorded as failed and returned.
   *
   * @param blocked why the memory there may not be that of the sub-mapping, if so
   */
  async restore(
    gone: readonly Held[],
    va: VaMapper | undefined,
    blocked: (sub: SubMapping) => PeerDmaError | undefined,
  ): Promise<PeerDmaError[]> {
    const problems: PeerDmaError[] = [];
    for (const { sub, state, error } of gone) {
      if (this.quarantinedIn(sub.range) !== undefined) continue; // which has those addresses in the records
      const held: Held = { range: sub.range, sub, state };
      if (error !== undefined) held.error = error;
      if (state === 'mapped') await this.#mapAgain(held, va, blocked(sub));
      if (held.state === 'failed' && state === 'mapped' && held.error !== undefined) problems.push(held.error);
      this.#record(held);
    }
    return problems;
  }

  /** Undoes {@link DmaMapper.map}; what the target won't give up is quarantined and returned. */
  async withdraw(subs: readonly SubMapping[], va: VaMapper | undefined): Promise<PeerDmaError[]> {
    const held = subs.map((sub) => this.#held.startingAt(sub.range.start));
    return this.#withdrawHeld(
      held.filter((one) => one !== undefined),
      va,
    );
  }

  /** Unmaps all that is held; what the target won't give up is quarantined and returned. */
  async withdrawAll(va: VaMapper | undefined): Promise<PeerDmaError[]> {
    return this.#withdrawHeld(this.#held.values(), va);
  }

  /**
   * Forgets everything without asking the target: its mappings are gone with it.
   *
   * @returns what was quarantined
   */
  abandon(va: VaMapper | undefined): SubMapping[] {
    const all = this.#held.values();
    this.#giveBack(all, va);
    for (const held of all) {
      this.#forget(held);
      if (held.state === 'mapped' || held.state === 'quarantined') publishUnmap(this.name, held.sub);
    }
    this.#quarantined = 0;
    return all.filter((held) => held.state === 'quarantined').map((held) => held.sub);
  }

  /** Decides what is to happen with a sub-mapping before the target is asked. */
  #admit(sub: SubMapping): Held {
    const held: Held = { range: sub.range, sub, state: 'mapped' };
    if (sub.kind === 'device' && this.#peerToPeer === 'off') held.state = 'skipped';
    else if (sub.store.file === undefined && this.target.needsFile === true) {
      const error = fileRequired(this.name, sub);
      if (!this.#mayMiss(sub)) throw error;
      held.state = 'failed';
      held.error = error;
    }
    return held;
  }

  #mayMiss(sub: SubMapping): boolean {
    return sub.kind === 'device' && this.#peerToPeer !== 'required';
  }

  /**
   * What goes to the target in one call, in order of address. What may be missed goes alone: if it fails, nothing else has
   * to be unmapped and mapped again.
   */
  #runs(wanted: readonly Held[]): Held[][] {
    const runs: Held[][] = [];
    let open: Held[] | undefined;
    for (const held of wanted) {
      if (this.target.mapDmaBatch === undefined || this.#mayMiss(held.sub)) {
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
        await this.#mapOne(first);
      } else {
        await this.target.mapDmaBatch?.(run.map((held) => mapRequest(held.sub, held.hostMemory)));
        for (const held of run) publishMap(this.name, held.sub);
      }
      return undefined;
    } catch (thrown) {
      const { sub } = run.find((held) => isAbout(thrown, held)) ?? first;
      if (run.length > 1 && thrown instanceof PeerDmaError && thrown.code === 'ERR_UNMAP_FAILED') {
        // The target could not take back what it had mapped, and doesn't say what is left: all of it may be.
        for (const held of run) {
          publishMap(this.name, held.sub);
          this.#quarantine(held, unmapFailed(this.name, held.sub, thrown));
        }
        return unmapFailed(this.name, sub, thrown);
      }
      const error = mapFailed(this.name, sub, thrown);
      if (!this.#mayMiss(first.sub)) return error;
      first.state = 'failed';
      first.error = error;
      return undefined;
    }
  }

  async #mapOne(held: Held): Promise<void> {
    const pending = this.target.mapDma(mapRequest(held.sub, held.hostMemory));
    if (pending !== undefined) await pending;
    publishMap(this.name, held.sub);
  }

  async #mapAgain(held: Held, va: VaMapper | undefined, blocked: PeerDmaError | undefined): Promise<void> {
    try {
      if (blocked !== undefined) throw blocked;
      this.#lend([held], va);
      await this.#mapOne(held);
    } catch (thrown) {
      this.#giveBack([held], va);
      held.state = 'failed';
      held.error = mapFailed(this.name, held.sub, thrown);
    }
  }

  /** Takes these away from the target, the last first; what it won't give up is quarantined and returned. */
  async #withdrawHeld(helds: readonly Held[], va: VaMapper | undefined): Promise<PeerDmaError[]> {
    const problems: PeerDmaError[] = [];
    const gone: Held[] = [];
    for (const held of helds.toReversed()) {
      const error = await this.#unmapOne(held);
      if (error === undefined) gone.push(held);
      else problems.push(error);
    }
    this.#giveBack(gone, va);
    return problems;
  }

  /** Takes one away from the target and forgets it, or quarantines it and says why. Its memory is still on loan. */
  async #unmapOne(held: Held): Promise<PeerDmaError | undefined> {
    if (held.state === 'quarantined') return held.error;
    if (held.state === 'mapped') {
      try {
        const pending = this.target.unmapDma(held.range);
        if (pending !== undefined) await pending;
      } catch (thrown) {
        const error = unmapFailed(this.name, held.sub, thrown);
        this.#quarantine(held, error);
        return error;
      }
      publishUnmap(this.name, held.sub);
    }
    this.#forget(held);
    return undefined;
  }

  #quarantine(held: Held, error: PeerDmaError): void {
    held.state = 'quarantined';
    held.error = error;
    this.#quarantined++;
    this.#record(held);
  }

  #record(held: Held): void {
    this.#held.insert(held);
    if (held.state === 'failed') this.#failed.add(held);
  }

  #forget(held: Held): void {
    this.#held.remove(held);
    this.#failed.delete(held);
  }

  #lend(helds: readonly Held[], va: VaMapper | undefined): void {
    if (!this.needsVa || va === undefined || helds.length === 0) return;
    const memories = va.lend(helds.map((held) => held.range));
    for (const [index, held] of helds.entries()) held.hostMemory = memories[index];
  }

  #giveBack(helds: readonly Held[], va: VaMapper | undefined): void {
    const lent: HostMemory[] = [];
    for (const held of helds) {
      if (held.hostMemory !== undefined) lent.push(held.hostMemory);
      held.hostMemory = undefined;
    }
    if (lent.length > 0) va?.release(lent);
  }
}

/** Whether what a target threw names the range of a sub-mapping. */
function isAbout(thrown: unknown, { range }: Held): boolean {
  return thrown instanceof PeerDmaError && thrown.range?.start === range.start && thrown.range.end === range.end;
}
