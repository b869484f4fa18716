/**
 * The memory map of a guest with all that follows it: DMA targets and the host view. Changes are made here, one at a
 * time, each as one transaction.
 */
import { memorySettled } from '#native';
import type { AddressRange } from '../address-range.ts';
import { DmaMapper } from '../dma/dma-mapper.ts';
import type { PeerPolicy } from '../dma/peer-policy.ts';
import type { TargetPort } from '../dma/target-port.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { PeerDmaError, throwIf } from '../errors.ts';
import { type MemoryAction, publishChange, thenSettled } from '../dma/events.ts';
import type { MemoryOwner } from '../memory/backing.ts';
import type { SharedFile } from '../memory/shared-file.ts';
import { FilePool } from '../memory/file-pool.ts';
import { VaMapper } from '../memory/va-mapper.ts';
import { nativeAsync } from '../native-call.ts';
import { Slices, batchesOf } from '../slices.ts';
import { type RefreshedMapping, retryDeviceMemory, refreshDevices, runWhileUnmapped } from './device-changes.ts';
import { applyChange } from './apply-change.ts';
import { catchUp } from './catch-up.ts';
import { FileIndex } from './file-index.ts';
import type { FlatChange } from './flat-diff.ts';
import { faultIn, faultInFiles, isRequiredByHostAddress, mapMissing, mappedByHostAddress } from './host-view.ts';
import { closedMeanwhile, hasProcessors, joinedAlready } from './join-errors.ts';
import { MemoryMap, type MemoryMapDraft } from './memory-map.ts';
import { MutationQueue } from './mutation-queue.ts';
import { requireBackingPresent } from './check-backing.ts';
import { isQuarantined, quarantineAgainst, quarantineOn } from './quarantine.ts';
import { reachabilityOf, requireReachable } from './reachability.ts';

let made = 0;

/** @internal */
export class GuestAddressSpace {
  /** Guest-physical addresses have this many bits. */
  readonly width: number;
  /** Unique; a later address space has a higher one. */
  readonly id: number;
  readonly #queue = new MutationQueue('this guest memory');
  readonly #mappers = new Set<DmaMapper>();
  /** Queued calls of {@link GuestAddressSpace.targetClosed}. */
  readonly #closing = new Set<{ readonly target: object }>();
  #map = MemoryMap.empty();
  /** Of the flat map in force. */
  readonly byFile = new FileIndex(new WeakRef(this));
  /** The host view; made when a target needs memory in it. */
  #va: VaMapper | undefined;
  #regionIds = 0;
  /** Called after each change of the map, which includes the end of guest memory. */
  readonly watchers = new Set<() => void>();
  #isDropped = false;
  /** The ranges of pinned BARs, active or not. */
  readonly pinned = new Set<AddressRange>();
  /** The memory of DMA buffers. */
  readonly buffers: FilePool = new FilePool('dma-buffers');
  #ramNames = 0;

  /** @param id default: the next number */
  constructor(width: number, id: number = made++) {
    this.width = width;
    this.id = id;
  }

  /** The map after the last successful change. */
  get map(): MemoryMap {
    return this.#map;
  }

  get mappers(): ReadonlySet<DmaMapper> {
    return this.#mappers;
  }

  get closed(): boolean {
    return this.#queue.closed;
  }

  /** Whether guest memory has ended: its map is empty and stays so. */
  get isDropped(): boolean {
    return this.#isDropped;
  }

  nextRegionId(): number {
    return this.#regionIds++;
  }

  /** The name of the next RAM without a name of its own. */
  nextRamName(): string {
    return `ram${this.#ramNames++}`;
  }

  /**
   * Changes the memory map and all targets. If it throws, nothing has changed.
   *
   * @param onTurn called when the turn of the change comes, before anything else
   * @throws the error of `onTurn`
   * @throws {PeerDmaError} `ERR_CLOSED`; `ERR_RANGE_QUARANTINED`; the error of a target or of the native core
   */
  change(edit: (draft: MemoryMapDraft) => void, onTurn?: () => void): Promise<void> {
    return this.#run('change', () => this.#change(edit), onTurn);
  }

  /**
   * Runs steps between which no other change is made.
   *
   * @param act makes changes by its argument, each as {@link GuestAddressSpace.change} does. Only these publish events
   */
  sequence<T>(act: (change: (edit: (draft: MemoryMapDraft) => void) => Promise<void>) => Promise<T>): Promise<T> {
    return this.#queue.run(() => act((edit) => thenSettled(this.id, 'change', () => this.#change(edit))));
  }

  /**
   * Checks what {@link GuestAddressSpace.change} would reject before it calls a target.
   *
   * @throws {PeerDmaError} as {@link GuestAddressSpace.change}, but for errors of targets and of the native core
   */
  check(edit: (draft: MemoryMapDraft) => void): void {
    const draft = this.#map.draft();
    edit(draft);
    this.#checkFlat(draft.finish().change);
  }

  /** Unmaps memory from the host view that a rollback could not unmap, as far as possible. */
  sweepHostView(): void {
    this.#va?.sweep();
  }

  /**
   * Removes the region with that number, if it exists. After {@link GuestAddressSpace.close} there is none.
   *
   * @throws {PeerDmaError} as {@link GuestAddressSpace.change}, but for `ERR_CLOSED`
   */
  removeRegion(id: number): Promise<void> {
    return this.#runAlways('change', () => this.#change((draft) => draft.has(id) && draft.remove(id)));
  }

  /**
   * Maps the flat map to a target, and every change from then on. If it throws, the target has nothing.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a target that has joined already. `ERR_RANGE_QUARANTINED`
   * for a target that has ranges in quarantine, and when a quarantine keeps RAM from being mapped in this process.
   * `ERR_CLOSED` if {@link GuestAddressSpace.targetClosed} is called for it meanwhile. The error of the target
   */
  register(port: TargetPort, policy: PeerPolicy): Promise<DmaMapper> {
    const { target, name, needsVa } = port;
    return this.#run('join', async () => {
      for (const mapper of this.#mappers) if (mapper.target === target) throw joinedAlready(mapper);
      if (port.mapsForProcessors === true && this.#processors !== undefined) throw hasProcessors(this.#processors);
      const mapper = new DmaMapper(port, policy, () => this.#openVa(), this.id);
      if (this.#isClosing(target)) throw closedMeanwhile(name);
      const slices = new Slices();
      const { flat } = this.#map;
      const subs = await flat.valuesInTurns(slices);
      const requireReach = reachabilityOf(subs, mapper);
      if (requireReach !== undefined) await slices.forEach(subs, requireReach);
      const due = needsVa === false ? [] : await slices.filter(subs, (sub) => mapper.usesHostAddress(sub));
      const va = needsVa === true ? this.#openVa() : this.#vaFor(due, [mapper]);
      // If it throws, some of it may stay mapped, which does no harm.
      const missing = va === undefined ? [] : await slices.filter(due, ({ isInHostView }) => !isInHostView);
      for (const batch of batchesOf(missing)) {
        if (va !== undefined) await mapMissing(batch, [mapper], this.#mappers, va);
        await slices.turn();
      }
      this.#list(mapper); // before it maps anything: a range that it fails to unmap has to count as quarantined
      try {
        if (this.#isClosing(target)) mapper.markClosed();
        if (va !== undefined && !mapper.faultsIn) {
          for (const batch of batchesOf(due)) {
            await faultIn(batch, [mapper], va);
            await slices.turn();
          }
        }
        const files = await slices.filter(subs, ({ memory }) => memory.file !== undefined && memory.faultInFirst);
        await faultInFiles(files, [mapper]);
        await mapper.map(subs, flat);
        if (mapper.closed) throw closedMeanwhile(name);
      } catch (error) {
        this.#dismiss(mapper);
        if (mapper.closed) await this.#forget(mapper);
        throw error;
      }
      return mapper;
    });
  }

  /**
   * Unmaps everything from a target, and removes it.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`: those ranges are quarantined, the target stays listed with them
   */
  unregister(mapper: DmaMapper): Promise<void> {
    return this.#runAlways('leave', async () => {
      if (!this.#mappers.has(mapper)) return;
      const problems = await mapper.unmapAll();
      this.#dismiss(mapper);
      throwFirst(problems);
    });
  }

  /**
   * Removes a target that was closed with all its mappings. Releases its quarantine, and maps again what the quarantine
   * blocked. A pending call of the target counts as done: the change continues.
   */
  targetClosed(target: object): Promise<void> {
    for (const mapper of this.#mappers) if (mapper.target === target) mapper.markClosed();
    const call = { target };
    this.#closing.add(call);
    return this.#runAlways('close-target', async () => {
      this.#closing.delete(call);
      for (const mapper of this.#mappers) {
        if (mapper.target === target) await this.#forget(mapper);
      }
    });
  }

  /**
   * Unmaps memory of devices from every target, calls `act`, and maps it again.
   *
   * @param act revokes mappings of the memory
   * @param onTurn called when the turn of the change comes, before anything else
   * @throws the error of `onTurn`: nothing has changed
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`, before `act` is called; the error of `act`; the error of a target that
   * requires the memory
   */
  runWhileUnmapped(files: readonly SharedFile[], act: () => void | Promise<void>, onTurn?: () => void): Promise<void> {
    return this.#runAlways('remap', () => runWhileUnmapped(this.byFile.of(files), this.#mappers, act), onTurn);
  }

  /** Maps to each target the memory of a device that it lacks. Its status reports failures. */
  retryDeviceMemory(files: readonly SharedFile[]): Promise<void> {
    return this.#runAlways('remap', () => retryDeviceMemory(this.byFile.of(files), this.#mappers, this.#va));
  }

  /** Maps all device memory of one target again whose mappings can be revoked. */
  refresh(mapper: DmaMapper): Promise<RefreshedMapping[]> {
    return this.#runAlways('remap', async () =>
      this.#mappers.has(mapper) && mapper.joined ? refreshDevices(mapper, this.#mappers, this.#va) : [],
    );
  }

  /** The IOVA ranges of each target that reports them. */
  iovaRanges(): (readonly AddressRange[])[] {
    const joined = [...this.#mappers].filter((mapper) => mapper.joined);
    return joined.flatMap((mapper) => {
      const ranges = mapper.iovaRanges();
      return ranges === undefined || ranges.length === 0 ? [] : [ranges];
    });
  }

  /** Calls `act` while no change is under way. */
  betweenChanges<T>(act: () => T | Promise<T>): Promise<T> {
    return this.#queue.runAlways(async () => act());
  }

  /**
   * Waits for queued changes, unmaps everything from all targets, and releases the memory. Can be called again after a
   * failure.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`: that memory is kept
   */
  close(): Promise<void> {
    return this.#queue.close(() => thenSettled(this.id, 'close', () => this.#end()));
  }

  async #change(edit: (draft: MemoryMapDraft) => void): Promise<void> {
    const draft = this.#map.draft();
    edit(draft);
    const { change, next, pieces, regions } = draft.finish();
    this.#checkFlat(change);
    const { removed, added } = change;
    if (removed.length > 0) requireBackingPresent(added, this.#mappers);
    const retried = withFailed(change, regions, this.#mappers);
    const va = this.#vaFor(mappedByHostAddress([...added, ...retried], this.#mappers), this.#mappers);
    await this.byFile.withAdded(added, async () => {
      await applyChange({ removed, added, retried }, this.#mappers, va);
      this.#commit(next, pieces, change);
    });
    if (removed.length + added.length > 0) publishChange(this.id, removed, added);
  }

  #checkFlat({ removed, added }: FlatChange): void {
    for (const { range } of removed) throwIf(quarantineOn(this.#mappers, range));
    for (const sub of added) throwIf(quarantineAgainst(this.#mappers, sub));
    requireReachable(added, this.#mappers);
  }

  async #end(): Promise<void> {
    const problems: PeerDmaError[] = [];
    for (const mapper of this.#mappers) {
      for (const problem of await mapper.unmapAll()) problems.push(problem);
      this.#dismiss(mapper);
    }
    throwFirst(problems);
    await this.#va?.close();
    this.#va = undefined;
    await this.#drop();
    // The next guest memory may need these pages.
    await nativeAsync(() => memorySettled());
  }

  /** Removes all regions, and releases their memory. */
  async #drop(): Promise<void> {
    const groups = this.#map.regionGroups();
    this.#map = MemoryMap.empty();
    this.byFile.clear();
    this.#isDropped = true;
    for (const changed of this.watchers) changed();
    const slices = new Slices();
    for (const group of groups) {
      for (const region of group) {
        region.memory?.owner.count(-1);
        for (const { memory } of await region.mappings.valuesInTurns(slices)) {
          memory.owner.count(-1);
          const turn = slices.step();
          if (turn !== undefined) await turn;
        }
      }
    }
  }

  /** @param onTurn called when its turn comes. If it throws, no event is published */
  #run<T>(action: MemoryAction, act: () => Promise<T>, onTurn: () => void = () => {}): Promise<T> {
    return this.#queue.run(() => {
      onTurn();
      return thenSettled(this.id, action, act);
    });
  }

  #runAlways<T>(action: MemoryAction, act: () => Promise<T>, onTurn: () => void = () => {}): Promise<T> {
    return this.#queue.runAlways(() => {
      onTurn();
      return thenSettled(this.id, action, act);
    });
  }

  #isClosing(target: object): boolean {
    return [...this.#closing].some((call) => call.target === target);
  }

  /**
   * The host view, which is made if any of these have to be mapped in it. If that fails, the change continues without
   * it, unless a target requires one of these.
   *
   * @param due the sub-mappings that targets map by host virtual address
   * @throws {PeerDmaError} `ERR_ADDRESS_SPACE_LIMIT` when it cannot be made and a target requires one of these
   */
  #vaFor(due: readonly SubMapping[], mappers: readonly DmaMapper[] | ReadonlySet<DmaMapper>): VaMapper | undefined {
    if (due.length === 0) return this.#va;
    try {
      return this.#openVa();
    } catch (error) {
      if (due.some((sub) => isRequiredByHostAddress(sub, mappers))) throw error;
      return undefined;
    }
  }

  #openVa(): VaMapper {
    return (this.#va ??= new VaMapper(this.width));
  }

  /** Adds a target. The one of the processors is the last: each step of a change reaches it after the IOMMUs. */
  #list(mapper: DmaMapper): void {
    const processors = this.#processors;
    if (processors !== undefined) this.#mappers.delete(processors);
    this.#mappers.add(mapper);
    if (processors !== undefined) this.#mappers.add(processors);
  }

  /** The target that maps memory for the processors of the guest. */
  get #processors(): DmaMapper | undefined {
    return [...this.#mappers].find((mapper) => mapper.mapsForProcessors);
  }

  /** Removes a closed target with its records and leases, and maps what its quarantine blocked. */
  async #forget(mapper: DmaMapper): Promise<void> {
    const quarantined = await mapper.abandon();
    this.#mappers.delete(mapper);
    try {
      await this.#repair(quarantined);
    } finally {
      for (const { memory } of quarantined) memory.owner.count(-1);
    }
  }

  /** Removes a target; it stays in the list while it has ranges in quarantine. */
  #dismiss(mapper: DmaMapper): void {
    mapper.leave();
    if (mapper.isEmpty) this.#mappers.delete(mapper);
  }

  /**
   * Unmaps the former quarantine of a closed target from the host view. Maps to the other targets what the quarantine
   * blocked.
   */
  async #repair(quarantined: readonly SubMapping[]): Promise<void> {
    const problems: unknown[] = [];
    const attempt = async (act: () => void | Promise<void>): Promise<void> => {
      try {
        await act();
      } catch (error) {
        problems.push(error);
      }
    };
    const va = this.#va;
    const due = new Set<SubMapping>();
    for (const sub of quarantined) {
      for (const one of this.#map.flat.overlapping(sub.range)) due.add(one);
      if (due.has(sub) || isQuarantined(this.#mappers, sub)) continue;
      await attempt(() => va?.discard(sub));
    }
    // Private memory in quarantine could not be mapped at other addresses.
    if (va !== undefined && quarantined.length > 0) {
      for (const sub of mappedByHostAddress(this.#map.flat.values(), this.#mappers))
        if (!sub.isInHostView) due.add(sub);
    }
    for (const sub of due) {
      if (quarantineAgainst(this.#mappers, sub) !== undefined) continue;
      await catchUp([sub], this.#mappers, this.#mappers, va, attempt); // one target does not affect the others
    }
    throwFirst(problems);
  }

  #commit(next: MemoryMap, pieces: ReadonlyMap<MemoryOwner, number>, change: FlatChange): void {
    this.#map = next;
    this.byFile.apply(change);
    for (const [owner, change] of pieces) owner.count(change);
    for (const changed of this.watchers) changed();
  }
}

/** The unchanged sub-mappings to retry: those of the change, and failed ones in its regions. */
function withFailed(
  { removed, unchanged }: FlatChange,
  regions: ReadonlySet<number>,
  mappers: ReadonlySet<DmaMapper>,
): SubMapping[] {
  const all = new Set(unchanged);
  for (const mapper of mappers) for (const region of regions) for (const sub of mapper.failedOf(region)) all.add(sub);
  for (const sub of removed) all.delete(sub);
  return [...all];
}

function throwFirst([first]: readonly unknown[]): void {
  throwIf(first);
}
