/**
 * The primitive steps, and the one legal order of them: unmap from the IOMMUs before the host virtual address goes, map
 * to the IOMMUs after it has come; all that goes, goes before anything comes.
 */
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { Held } from '../dma/holdings.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { type PeerDmaError, throwIf } from '../errors.ts';
import { faultIn } from '../memory/backing.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import type { FlatChange } from './flat-change.ts';
import type { Step } from './plan.ts';
import { isQuarantined, quarantineAgainst } from './quarantine.ts';

/** The plan that takes a change of the flat map to every target. @internal */
export function changeSteps(
  { goes, comes, stays }: FlatChange,
  mappers: ReadonlySet<DmaMapper>,
  va: VaMapper | undefined,
): Step[] {
  const following = [...mappers].filter((mapper) => mapper.following);
  const steps = catchUp(stays, mappers, va);
  if (goes.length > 0) {
    for (const mapper of following) steps.push(unmapFromTarget(mapper, goes, mappers));
    if (va !== undefined) for (const sub of goes) steps.push(hide(sub, va, mappers));
  }
  if (comes.length > 0) {
    const shown = va === undefined ? [] : wanted(comes, mappers);
    if (va !== undefined && shown.length > 0) {
      for (const sub of shown) steps.push(show(sub, va, mappers));
      steps.push(ensureMapped(shown, va));
    }
    steps.push(faultInFiles(comes, following));
    for (const mapper of following) steps.push(mapToTarget(mapper, comes));
  }
  return steps;
}

/** The plan that gives this process and every target what they miss of these sub-mappings. @internal */
export function catchUp(subs: readonly SubMapping[], mappers: Mappers, va: VaMapper | undefined): Step[] {
  const steps = va === undefined ? [] : showMissing(wanted(subs, mappers), mappers, va);
  for (const mapper of mappers) {
    const missing = mapper.missingAmong(subs);
    if (missing.length > 0) steps.push(tryAgain(mapper, missing, mappers, va));
  }
  return steps;
}

/** The plan that gives one target what it misses of a sub-mapping. @internal */
export function catchUpOne(mapper: DmaMapper, sub: SubMapping, mappers: Mappers, va: VaMapper | undefined): Step[] {
  const missing = mapper.missingAmong([sub]);
  const shown = va !== undefined && mapper.wantsVa(sub) ? showMissing(missing, mappers, va) : [];
  return missing.length === 0 ? [] : [...shown, tryAgain(mapper, missing, mappers, va)];
}

/** All targets, those included that are here for their quarantine alone. */
type Mappers = Iterable<DmaMapper>;

/** Those that any target wants to have in this process. What none does is shown when one joins that does. @internal */
export function wanted(subs: readonly SubMapping[], mappers: Mappers): SubMapping[] {
  const following = [...mappers].filter((mapper) => mapper.following);
  return subs.filter((sub) => following.some((mapper) => mapper.wantsVa(sub)));
}

/** Shows memory in this process. */
function show(sub: SubMapping, va: VaMapper, mappers: Mappers): Step {
  return {
    run: () => va.show(sub),
    undo: () => {
      if (!isQuarantined(mappers, sub)) va.discard(sub);
    },
  };
}

/** Hides memory in this process. What keeps it from being shown again is told by the undoing of the step that it is about. */
function hide(sub: SubMapping, va: VaMapper, mappers: Mappers): Step {
  const shown = va.shows(sub);
  return {
    run: () => va.hide(sub),
    undo: () => {
      if (shown && quarantineAgainst(mappers, sub) === undefined) va.show(sub);
    },
  };
}

/** The plan that shows what this process does not show of these sub-mappings. @internal */
export function showMissing(subs: readonly SubMapping[], mappers: Mappers, va: VaMapper): Step[] {
  return subs.filter((sub) => !va.shows(sub)).map((sub) => showAgain(sub, va, mappers));
}

/** Shows what could not be shown when an earlier change was undone. What succeeds now is not undone. */
function showAgain(sub: SubMapping, va: VaMapper, mappers: Mappers): Step {
  return {
    run: () => {
      throwIf(quarantineAgainst(mappers, sub));
      va.show(sub);
    },
    undo: () => {},
  };
}

/**
 * Faults in RAM, and private memory of whatever kind: a private page that nobody has written yet would be pinned as the
 * kernel's page of zeros where the device may only read it (Linux before 6.2, commit 84209e87c696), and stay that for the
 * device. A file of device memory is the device's; whether it is there is for the target to find out.
 *
 * @internal
 */
export function ensureMapped(subs: readonly SubMapping[], va: VaMapper): Step {
  const due = subs.filter(({ kind, store }) => kind === 'ram' || store.private !== undefined);
  return { run: () => va.ensureMapped(due.map(({ range }) => range)), undo: () => {} };
}

/** Faults in what targets map by file and the kernel would not allocate as it was ordered. @internal */
export function faultInFiles(subs: readonly SubMapping[], mappers: readonly DmaMapper[]): Step {
  const due = subs.filter(
    (sub) => sub.kind === 'ram' && sub.store.file && sub.store.particular && mappers.some((one) => one.mapsFile(sub)),
  );
  return {
    run: async () => {
      for (const { store, range } of due) await faultIn(store, range.length);
    },
    undo: () => {},
  };
}

/** Takes memory to one target. @internal */
export function mapToTarget(mapper: DmaMapper, subs: readonly SubMapping[]): Step {
  return { run: () => mapper.map(subs), undo: () => mapper.withdraw(subs) };
}

/** What a target misses, in a part of memory that is changed again. What succeeds now is not undone. */
function tryAgain(mapper: DmaMapper, subs: readonly SubMapping[], mappers: Mappers, va: VaMapper | undefined): Step {
  return {
    run: async () => {
      for (const sub of subs) throwIf(quarantineFor(mapper, sub, mappers));
      if (va !== undefined)
        await ensureMapped(
          subs.filter((sub) => mapper.wantsVa(sub)),
          va,
        ).run();
      await mapper.tryAgain(subs);
    },
    undo: () => {},
  };
}

function unmapFromTarget(mapper: DmaMapper, subs: readonly SubMapping[], mappers: Mappers): Step {
  let gone: readonly Held[] = [];
  return {
    run: async () => {
      gone = await mapper.unmap(subs);
    },
    undo: () => mapper.restore(gone, (sub) => quarantineFor(mapper, sub, mappers)),
  };
}

/**
 * What keeps a target from having a sub-mapping, if anything. What another target keeps is in the way of those alone that
 * depend on what this process shows.
 *
 * @internal
 */
export function quarantineFor(mapper: DmaMapper, sub: SubMapping, mappers: Mappers): PeerDmaError | undefined {
  return quarantineAgainst(mapper.wantsVa(sub) ? mappers : [mapper], sub);
}
