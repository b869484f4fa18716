/**
 * The primitive steps of a change, and their order: IOMMUs unmap memory before the host view does, and map it after the
 * host view; all that is removed is unmapped before anything is mapped.
 */
import type { DmaMapper, UnmappedSub } from '../dma/dma-mapper.ts';
import { type SubMapping, isFaultedIn } from '../dma/sub-mapping.ts';
import { type PeerDmaError, throwIf } from '../errors.ts';
import type { IntervalMap } from '../interval-map.ts';
import { faultIn } from '../memory/backing.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import { Slices, partsOf } from '../slices.ts';
import type { FlatChange } from './flat-change.ts';
import type { Step } from './plan.ts';
import { isQuarantined, quarantineAgainst } from './quarantine.ts';

/** The plan that applies a change of the flat map to the host view and all targets. @internal */
export function changeSteps(
  { removed, added, unchanged }: FlatChange,
  mappers: Mappers,
  va: VaMapper | undefined,
): Step[] {
  const following = [...mappers].filter((mapper) => mapper.following);
  const steps = catchUp(unchanged, mappers, va);
  if (removed.length > 0) {
    for (const mapper of following) steps.push(unmapFromTarget(mapper, removed, mappers));
    if (va !== undefined) for (const sub of removed) steps.push(unmapFromHost(sub, va, mappers));
  }
  if (added.length > 0) {
    const due = va === undefined ? [] : wanted(added, following);
    if (va !== undefined && due.length > 0) {
      for (const sub of due) steps.push(mapInHost(sub, va, mappers));
      steps.push(ensureMapped(due, following, va));
    }
    steps.push(faultInFiles(added, following));
    for (const mapper of following) steps.push(mapToTarget(mapper, added));
  }
  return steps;
}

/** The plan that maps what the host view and the targets miss of these sub-mappings. @internal */
export function catchUp(subs: readonly SubMapping[], mappers: Mappers, va: VaMapper | undefined): Step[] {
  const steps = va === undefined ? [] : mapMissing(wanted(subs, mappers), [...mappers], mappers, va);
  for (const mapper of mappers) {
    const missing = mapper.missingAmong(subs);
    if (missing.length > 0) steps.push(tryAgain(mapper, missing, mappers, va));
  }
  return steps;
}

/** The plan that maps to one target a sub-mapping that it misses. @internal */
export function catchUpOne(mapper: DmaMapper, sub: SubMapping, mappers: Mappers, va: VaMapper | undefined): Step[] {
  const missing = mapper.missingAmong([sub]);
  if (missing.length === 0) return [];
  const view = va === undefined ? [] : mapMissing(wanted(missing, [mapper]), [mapper], mappers, va);
  return [...view, tryAgain(mapper, missing, mappers, va)];
}

/** All targets, including those that stay only for their quarantine. */
type Mappers = Iterable<DmaMapper>;

/**
 * Those that one of the targets maps by host virtual address. The others are mapped in this process when such a target
 * joins.
 *
 * @internal
 */
export function wanted(subs: readonly SubMapping[], mappers: Mappers): readonly SubMapping[] {
  const following = [...mappers].filter((mapper) => mapper.following);
  const isWanted = (sub: SubMapping): boolean => following.some((mapper) => mapper.wantsVa(sub));
  return subs.every(isWanted) ? subs : subs.filter(isWanted);
}

/**
 * Whether a change fails that can't map a sub-mapping in this process: a target requires it by host virtual address.
 *
 * @internal
 */
export function isRequired(sub: SubMapping, mappers: Mappers): boolean {
  for (const mapper of mappers) if (mapper.following && mapper.wantsVa(sub) && mapper.requires(sub)) return true;
  return false;
}

/**
 * Maps memory in this process. If that fails, memory that no target requires is missed; it is faulted in here, and not
 * with the rest, so that a failure concerns it alone.
 */
function mapInHost(sub: SubMapping, va: VaMapper, mappers: Mappers): Step {
  return {
    run: isRequired(sub, mappers) ? () => va.map(sub) : () => mapOrMiss(sub, va, () => va.map(sub)),
    undo: () => {
      if (!isQuarantined(mappers, sub)) va.discard(sub);
    },
  };
}

async function mapOrMiss(sub: SubMapping, va: VaMapper, act: () => void): Promise<void> {
  try {
    act();
    if (isFaultedIn(sub)) await va.ensureMapped([sub.range]);
  } catch (why) {
    va.miss(sub, why);
  }
}

/** Unmaps memory in this process. If a quarantine blocks the undo, the undo of the quarantined step reports it. */
function unmapFromHost(sub: SubMapping, va: VaMapper, mappers: Mappers): Step {
  const wasMapped = sub.isInHostView;
  return {
    run: () => va.unmap(sub),
    undo: () => {
      if (wasMapped && quarantineAgainst(mappers, sub) === undefined) va.map(sub);
    },
  };
}

/**
 * The plan that maps in this process what of these sub-mappings is not mapped there.
 *
 * @param due what the targets concerned map by host virtual address
 * @param concerned the targets that are to have them
 * @param mappers all targets, for their quarantine
 * @internal
 */
export function mapMissing(
  due: readonly SubMapping[],
  concerned: readonly DmaMapper[],
  mappers: Mappers,
  va: VaMapper,
): Step[] {
  const missing = due.filter((sub) => !sub.isInHostView);
  if (missing.length === 0) return [];
  // What could not be mapped when an earlier change was undone, or was missed. What succeeds now is not undone.
  const steps: Step[] = [];
  const required: SubMapping[] = [];
  const others: SubMapping[] = [];
  for (const sub of missing) (isRequired(sub, concerned) ? required : others).push(sub);
  if (required.length > 0) {
    const run = async (): Promise<void> => {
      for (const sub of required) throwIf(quarantineAgainst(mappers, sub));
      await va.mapAll(required);
    };
    steps.push({ run, undo: () => {} });
  }
  for (const sub of others) {
    const act = (): void => {
      throwIf(quarantineAgainst(mappers, sub));
      va.map(sub);
    };
    steps.push({ run: () => mapOrMiss(sub, va, act), undo: () => {} });
  }
  return steps;
}

/** Faults in host memory for targets that require it and do not fault it in themselves. @internal */
export function ensureMapped(subs: readonly SubMapping[], mappers: Mappers, va: VaMapper): Step {
  const others = [...mappers].filter((mapper) => !mapper.faultsIn);
  const due = others.length === 0 ? [] : subs.filter((sub) => isFaultedIn(sub) && isRequired(sub, others));
  return { run: () => (due.length === 0 ? undefined : va.ensureMapped(due.map(({ range }) => range))), undo: () => {} };
}

/** Faults in files that the kernel would allocate with other pages than requested. @internal */
export function faultInFiles(subs: readonly SubMapping[], mappers: readonly DmaMapper[]): Step {
  const due = subs.filter((sub) => isFaultedInFirst(sub) && mappers.some((one) => one.mapsFile(sub)));
  return {
    run: async () => {
      for (const { store, range } of due) await faultIn(store, range.length);
    },
    undo: () => {},
  };
}

function isFaultedInFirst({ kind, store }: SubMapping): boolean {
  return kind === 'ram' && store.file !== undefined && store.faultInFirst;
}

/** Maps memory to one target. */
function mapToTarget(mapper: DmaMapper, subs: readonly SubMapping[]): Step {
  return { run: () => mapper.map(subs), undo: () => mapper.withdraw(subs) };
}

/**
 * The plan that maps the whole flat map to a target that joins.
 *
 * @param due those of `subs` that the target maps by host virtual address
 * @internal
 */
export function joinTarget(
  mapper: DmaMapper,
  subs: readonly SubMapping[],
  flat: IntervalMap<SubMapping>,
  due: readonly SubMapping[],
  va: VaMapper | undefined,
): Step[] {
  const slices = new Slices();
  const faultInMemory = async (): Promise<void> => {
    if (va === undefined || mapper.faultsIn) return;
    for (const part of partsOf(due)) {
      await ensureMapped(part, [mapper], va).run();
      await slices.turn();
    }
  };
  const faultInTheirFiles = async (): Promise<void> => {
    const files = await slices.filter(subs, isFaultedInFirst);
    await faultInFiles(files, [mapper]).run();
  };
  return [
    { run: faultInMemory, undo: () => {} },
    { run: faultInTheirFiles, undo: () => {} },
    { run: () => mapper.map(subs, flat), undo: () => mapper.withdrawAll() },
  ];
}

/**
 * Maps again what a target misses, in a range that changes. It is not undone. Memory that a quarantine blocks stays
 * missing, unless the target requires it: then the step fails.
 */
function tryAgain(mapper: DmaMapper, subs: readonly SubMapping[], mappers: Mappers, va: VaMapper | undefined): Step {
  return {
    run: async () => {
      const free = subs.filter((sub) => {
        const quarantine = quarantineFor(mapper, sub, mappers);
        if (mapper.requires(sub)) throwIf(quarantine);
        return quarantine === undefined;
      });
      if (va !== undefined) await ensureMapped(free, [mapper], va).run();
      await mapper.retry(free);
    },
    undo: () => {},
  };
}

function unmapFromTarget(mapper: DmaMapper, subs: readonly SubMapping[], mappers: Mappers): Step {
  let gone: readonly UnmappedSub[] = [];
  return {
    run: async () => {
      gone = await mapper.unmap(subs);
    },
    undo: () => mapper.restore(gone, (sub) => quarantineFor(mapper, sub, mappers)),
  };
}

/**
 * The error of a quarantine that keeps a sub-mapping from a target, if there is one. The quarantine of another target
 * matters only if this one maps the memory by host virtual address.
 *
 * @internal
 */
export function quarantineFor(mapper: DmaMapper, sub: SubMapping, mappers: Mappers): PeerDmaError | undefined {
  return quarantineAgainst(mapper.wantsVa(sub) ? mappers : [mapper], sub);
}
