/**
 * The memory map in force and everything that follows it: the DMA targets and this process's own view. All changes go
 * through here, one at a time, each as one plan.
 */
import type { AddressRange } from '../address-range.ts';
import { DmaMapper } from '../dma/dma-mapper.ts';
import type { DmaTarget, PeerToPeer } from '../dma/target.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { PeerDmaError } from '../errors.ts';
import { publishChange } from '../dma/events.ts';
import type { StoreOwner } from '../memory/backing.ts';
import type { MemoryFile } from '../memory/memory-file.ts';
import { VaMapper } from '../memory/va-mapper.ts';
import { MemoryMap, type MemoryMapDraft } from './memory-map.ts';
import { MutationQueue } from './mutation-queue.ts';
import { type Step, applyPlan } from './plan.ts';
import { quarantineOn } from './quarantine.ts';
import { changeSteps, ensureMapped, mapToTarget, show } from './steps.ts';

/** @internal */
export class AddressSpace {
  /** Guest-physical addresses have this many bits. */
  readonly width: number;
  readonly #queue = new MutationQueue('this guest memory');
  readonly #mappers = new Set<DmaMapper>();
  #map = MemoryMap.empty();
  /** Made for the first target that needs it. */
  #va: VaMapper | undefined;
  #regionIds = 0;
  /** Made here, so closed here. */
  readonly #files: MemoryFile[] = [];

  constructor(width: number) {
    this.width = width;
  }

  /** The map as the last successful change left it. */
  get map(): MemoryMap {
    return this.#map;
  }

  get mappers(): ReadonlySet<DmaMapper> {
    return this.#mappers;
  }

  get closed(): boolean {
    return this.#queue.closed;
  }

  nextRegionId(): number {
    return this.#regionIds++;
  }

  /** Takes over files that nobody else closes. */
  adopt(files: readonly MemoryFile[]): void {
    this.#files.push(...files);
  }

  /**
   * Changes the memory map and takes the change to every target. If it throws, nothing has changed.
   *
   * @throws {PeerDmaError} `ERR_CLOSED`; `ERR_RANGE_QUARANTINED`; what a target or the native core said
   */
  change(edit: (draft: MemoryMapDraft) => void): Promise<void> {
    return this.#queue.run(async () => {
      const draft = this.#map.draft();
      edit(draft);
      const { change, next, pieces } = draft.settle();
      this.#refuseQuarantined(change.goes);
      this.#refuseQuarantined(change.comes);
      await applyPlan(changeSteps(change, this.#mappers, this.#va));
      this.#commit(next, pieces);
      if (change.goes.length + change.comes.length > 0) publishChange(change.goes, change.comes);
    });
  }

  /**
   * Lets a target follow the map, from the present one on. If it throws, the target holds nothing.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a target that follows this map already; what the target said
   */
  register(target: DmaTarget, peerToPeer: PeerToPeer): Promise<DmaMapper> {
    return this.#queue.run(async () => {
      for (const mapper of this.#mappers) {
        if (mapper.target === target) {
          throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${mapper.name} is with this memory map already`, {
            target: mapper.name,
          });
        }
      }
      const mapper = new DmaMapper(target, peerToPeer);
      const subs = this.#map.flat.values();
      this.#refuseUnshown(subs);
      const steps: Step[] = [];
      if (mapper.needsVa) {
        const va = await this.#showAll();
        steps.push(ensureMapped(subs, va));
      }
      steps.push(mapToTarget(mapper, subs, this.#va));
      this.#mappers.add(mapper); // from now on, so that a range it won't give back is seen as quarantined
      try {
        await applyPlan(steps);
      } catch (error) {
        this.#dismiss(mapper);
        throw error;
      }
      return mapper;
    });
  }

  /**
   * Unmaps all that a target holds and lets go of it.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`: those ranges are quarantined, the target stays listed with them
   */
  unregister(mapper: DmaMapper): Promise<void> {
    return this.#queue.runAlways(async () => {
      if (!this.#mappers.has(mapper)) return;
      const problems = await mapper.withdrawAll(this.#va);
      this.#dismiss(mapper);
      throwFirst(problems);
    });
  }

  /**
   * Lets go of a target whose mappings are gone with it. What was quarantined for it is released, and what the quarantine
   * kept from being restored is restored.
   */
  targetClosed(target: DmaTarget): Promise<void> {
    return this.#queue.runAlways(async () => {
      for (const mapper of this.#mappers) {
        if (mapper.target !== target) continue;
        this.#mappers.delete(mapper);
        await this.#repair(mapper.abandon(this.#va));
      }
    });
  }

  /** Faults memory in before anybody asks for it. */
  prefault(ranges: readonly AddressRange[]): Promise<void> {
    return this.#queue.run(async () => {
      this.#refuseUnshown(this.#map.flat.values());
      const va = await this.#showAll();
      await va.ensureMapped(ranges);
    });
  }

  /**
   * Waits for what is queued, unmaps everything from every target, then gives the host memory back. Can be called again
   * when it failed.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`: that memory is kept
   */
  close(): Promise<void> {
    return this.#queue.close(async () => {
      const problems: PeerDmaError[] = [];
      for (const mapper of this.#mappers) {
        for (const problem of await mapper.withdrawAll(this.#va)) problems.push(problem);
        this.#dismiss(mapper);
      }
      throwFirst(problems);
      this.#va?.close();
      this.#va = undefined;
      const draft = this.#map.draft();
      for (const region of draft.regions()) draft.remove(region.id);
      const { next, pieces } = draft.settle();
      this.#commit(next, pieces);
      for (const file of this.#files.splice(0)) file.close();
    });
  }

  /** Shows the whole map in this process, from now on. */
  async #showAll(): Promise<VaMapper> {
    if (this.#va !== undefined) return this.#va;
    const va = new VaMapper(this.width);
    try {
      await applyPlan(this.#map.flat.values().map((sub) => show(sub, va, () => undefined)));
    } catch (error) {
      va.close();
      throw error;
    }
    this.#va = va;
    return va;
  }

  /** A target that is to go: it is forgotten, but for ranges in quarantine. */
  #dismiss(mapper: DmaMapper): void {
    mapper.stopFollowing();
    if (mapper.status().length === 0) this.#mappers.delete(mapper);
  }

  /**
   * Puts this process's view right where it still shows what a target that is gone now would not give up, and gives the
   * other targets what they could not be given because of it.
   */
  async #repair(kept: readonly SubMapping[]): Promise<void> {
    const va = this.#va;
    if (va === undefined) return;
    const missing = new Set<SubMapping>();
    for (const sub of kept) {
      if (this.#map.flat.startingAt(sub.range.start) === sub) continue; // which is what is to be seen there
      if (quarantineOn(this.#mappers, sub.range) !== undefined) continue;
      va.unmap(sub.range);
      for (const due of this.#map.flat.overlapping(sub.range)) missing.add(due);
    }
    const problems: unknown[] = [];
    for (const sub of missing) {
      if (quarantineOn(this.#mappers, sub.range) !== undefined) continue;
      try {
        va.map(sub);
        if (sub.kind === 'ram') await va.ensureMapped([sub.range]);
        for (const mapper of this.#mappers) await mapper.tryAgain([sub], va);
      } catch (error) {
        problems.push(error);
      }
    }
    throwFirst(problems);
  }

  #commit(next: MemoryMap, pieces: ReadonlyMap<StoreOwner, number>): void {
    this.#map = next;
    for (const [owner, change] of pieces) owner.count(change);
  }

  /** Where a quarantine keeps this process from showing what the map says, nobody may join. */
  #refuseUnshown(subs: readonly SubMapping[]): void {
    for (const sub of subs) {
      const error = quarantineOn(this.#mappers, sub.range, sub);
      if (error !== undefined) throw error;
    }
  }

  #refuseQuarantined(subs: readonly SubMapping[]): void {
    for (const { range } of subs) {
      const error = quarantineOn(this.#mappers, range);
      if (error !== undefined) throw error;
    }
  }
}

function throwFirst(problems: readonly unknown[]): void {
  const [first] = problems;
  if (first !== undefined) throw first;
}
