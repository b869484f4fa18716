/**
 * The primitive steps, and the one legal order of them: unmap from the IOMMUs before the host virtual address goes, map
 * to the IOMMUs after it has come; all that goes, goes before anything comes.
 */
import type { DmaMapper, Held } from '../dma/dma-mapper.ts';
import type { AddressRange } from '../address-range.ts';
import type { PeerDmaError } from '../errors.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import type { FlatChange } from './flat-change.ts';
import type { Step } from './plan.ts';
import { quarantineOn } from './quarantine.ts';

/** The plan that takes a change of the flat map to every target. @internal */
export function changeSteps(
  { goes, comes, stays }: FlatChange,
  mappers: ReadonlySet<DmaMapper>,
  va: VaMapper | undefined,
): Step[] {
  const blocked: Blocked = (range, own) => quarantineOn(mappers, range, own);
  const following = [...mappers].filter((mapper) => mapper.following);
  const steps: Step[] = [];
  for (const mapper of following) {
    const failed = mapper.failedAmong(stays);
    if (failed.length > 0) steps.push(tryAgain(mapper, failed, va, blocked));
  }
  if (goes.length > 0) {
    for (const mapper of following) steps.push(unmapFromTarget(mapper, goes, va, blocked));
    if (va !== undefined) for (const sub of goes) steps.push(hide(sub, va, blocked));
  }
  if (comes.length > 0) {
    if (va !== undefined) {
      for (const sub of comes) steps.push(show(sub, va, blocked));
      if (following.some((mapper) => mapper.needsVa)) steps.push(ensureMapped(comes, va));
    }
    for (const mapper of following) steps.push(mapToTarget(mapper, comes, va));
  }
  return steps;
}

/** Whether memory at a range has to stay as it is, and why. */
type Blocked = (range: AddressRange, own?: SubMapping) => PeerDmaError | undefined;

/** Shows memory in this process. @internal */
export function show(sub: SubMapping, va: VaMapper, blocked: Blocked): Step {
  return {
    run: () => va.map(sub),
    undo: () => {
      if (blocked(sub.range) === undefined) va.unmap(sub.range);
    },
  };
}

/** Hides memory in this process. What keeps it from being shown again has been told by the step that failed. */
function hide(sub: SubMapping, va: VaMapper, blocked: Blocked): Step {
  return {
    run: () => va.unmap(sub.range),
    undo: () => {
      if (blocked(sub.range) === undefined) va.map(sub);
    },
  };
}

/** Faults RAM in. Device memory is the device's; whether it is there is for the target to find out. @internal */
export function ensureMapped(subs: readonly SubMapping[], va: VaMapper): Step {
  const ram = subs.filter(({ kind }) => kind === 'ram').map(({ range }) => range);
  return { run: () => va.ensureMapped(ram), undo: () => {} };
}

/** Takes memory to one target. @internal */
export function mapToTarget(mapper: DmaMapper, subs: readonly SubMapping[], va: VaMapper | undefined): Step {
  return { run: () => mapper.map(subs, va), undo: () => mapper.withdraw(subs, va) };
}

/** What a target could not map before, in a part of memory that is changed again. What succeeds now is not undone. */
function tryAgain(mapper: DmaMapper, subs: readonly SubMapping[], va: VaMapper | undefined, blocked: Blocked): Step {
  return {
    run: async () => {
      for (const sub of subs) {
        const error = blocked(sub.range, sub); // this process shows something else there
        if (error !== undefined) throw error;
      }
      if (va !== undefined && mapper.needsVa) await ensureMapped(subs, va).run();
      await mapper.tryAgain(subs, va);
    },
    undo: () => {},
  };
}

function unmapFromTarget(
  mapper: DmaMapper,
  subs: readonly SubMapping[],
  va: VaMapper | undefined,
  blocked: Blocked,
): Step {
  let gone: readonly Held[] = [];
  return {
    run: async () => {
      gone = await mapper.unmap(subs, va);
    },
    undo: () => mapper.restore(gone, va, (sub) => blocked(sub.range, sub)),
  };
}
