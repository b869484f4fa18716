/**
 * The primitive steps, and the one legal order of them: unmap from the IOMMUs before the host virtual address goes, map
 * to the IOMMUs after it has come; all that goes, goes before anything comes.
 */
import type { DmaMapper, UnmappedSub } from '../dma/dma-mapper.ts';
import { type SubMapping, isFaultedIn } from '../dma/sub-mapping.ts';
import { type PeerDmaError, throwIf } from '../errors.ts';
import type { IntervalMap } from '../interval-map.ts';
import { faultIn } from '../memory/backing.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import type { FlatChange } from './flat-change.ts';
import type { Step } from './plan.ts';
import { isQuarantined, quarantineAgainst } from './quarantine.ts';

/** The plan that takes a change of the flat map to every target. @internal */
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

/** The plan that gives this process and every target what they miss of these sub-mappings. @internal */
export function catchUp(subs: readonly SubMapping[], mappers: Mappers, va: VaMapper | undefined): Step[] {
  const steps = va === undefined ? [] : mapMissing(wanted(subs, mappers), [...mappers], mappers, va);
  for (const mapper of mappers) {
    const missing = mapper.missingAmong(subs);
    if (missing.length > 0) steps.push(tryAgain(mapper, missing, mappers, va));
  }
  return steps;
}

/** The plan that gives one target what it misses of a sub-mapping. @internal */
export function catchUpOne(mapper: DmaMapper, sub: SubMapping, mappers: Mappers, va: VaMapper | undefined): Step[] {
  const missing = mapper.missingAmong([sub]);
  if (missing.length === 0) return [];
  const view = va === undefined ? [] : mapMissing(wanted(missing, [mapper]), [mapper], mappers, va);
  return [...view, tryAgain(mapper, missing, mappers, va)];
}

/** All targets, those included that are here for their quarantine alone. */
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

/** Unmaps memory in this process. The undo of the quarantined step reports why it is not mapped again. */
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

/** Faults in what targets map by file and the kernel would not allocate as it was ordered. @internal */
export function faultInFiles(subs: readonly SubMapping[], mappers: readonly DmaMapper[]): Step {
  const due = subs.filter(
    (sub) => sub.kind === 'ram' && sub.store.file && sub.store.faultInFirst && mappers.some((one) => one.mapsFile(sub)),
  );
  return {
    run: async () => {
      for (const { store, range } of due) await faultIn(store, range.length);
    },
    undo: () => {},
  };
}

/** Takes memory to one target. */
function mapToTarget(mapper: DmaMapper, subs: readonly SubMapping[]): Step {
  return { run: () => mapper.map(subs), undo: () => mapper.withdraw(subs) };
}

/** Maps the whole flat map to a target that joins. @internal */
export function joinTarget(mapper: DmaMapper, subs: readonly SubMapping[], flat: IntervalMap<SubMapping>): Step {
  return { run: () => mapper.map(subs, flat), undo: () => mapper.withdrawAll() };
}

/**
 * What a target misses, in a part of memory that is changed again. What succeeds now is not undone. What a quarantine
 * keeps from a target that does not require it stays missing.
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
 * What keeps a target from having a sub-mapping, if anything. What another target keeps is in the way of those alone that
 * depend on what is mapped in this process.
 *
 * @internal
 */
export function quarantineFor(mapper: DmaMapper, sub: SubMapping, mappers: Mappers): PeerDmaError | undefined {
  return quarantineAgainst(mapper.wantsVa(sub) ? mappers : [mapper], sub);
}
