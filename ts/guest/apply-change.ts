/**
 * Applies a change of the flat map to the host view and all targets.
 *
 * There is one legal order. IOMMUs unmap memory before the host view does, and map it after the host view. All that is
 * removed is unmapped before anything is mapped. The processors of the guest come after the IOMMUs: a guest does not
 * reach added memory before a device does.
 */
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import { catchUp } from './catch-up.ts';
import { runsOf } from './adjoining.ts';
import {
  faultIn,
  faultInFiles,
  isRequiredByHostAddress,
  mapOrRecordFailure,
  mappedByHostAddress,
} from './host-view.ts';
import { isQuarantined, quarantineAgainst, quarantineFor } from './quarantine.ts';
import { type Undo, transaction } from './transaction.ts';

/** A change of the flat map to apply. @internal */
export interface AppliedChange {
  readonly removed: readonly SubMapping[];
  readonly added: readonly SubMapping[];
  /** Unchanged sub-mappings of the change that targets or the host view may miss: they are mapped first. */
  readonly retried: readonly SubMapping[];
}

/**
 * Applies all of the change, or leaves everything as it was, except for retries that succeeded.
 *
 * @param mappers all targets, including those that stay only for their quarantine
 * @param va the host view, if there is one
 * @throws the error of a target or of the host view; `ERR_ROLLBACK_FAILED`
 * @internal
 */
export function applyChange(
  { removed, added, retried }: AppliedChange,
  mappers: ReadonlySet<DmaMapper>,
  va: VaMapper | undefined,
): Promise<void> {
  const joined = [...mappers].filter((mapper) => mapper.joined);
  return transaction(async (undo) => {
    const suspended: (() => void)[] = [];
    const resume = (): void => suspended.splice(0).forEach((end) => end());
    undo.push(resume);
    // Part of removed RAM may be mapped again in the same change: a processor cannot execute an instruction that has no
    // memory meanwhile.
    for (const mapper of removed.some(({ kind }) => kind === 'ram') ? joined : []) {
      const pending = mapper.suspend();
      suspended.push(pending instanceof Promise ? await pending : pending);
    }
    if (retried.length > 0) await catchUp(retried, mappers, mappers, va);
    if (removed.length > 0) {
      for (const mapper of joined) {
        const unmapped = await mapper.unmap(removed);
        undo.push(() => mapper.undoUnmap(unmapped, (sub) => quarantineFor(mapper, sub, mappers)));
      }
      if (va !== undefined) unmapFromHostView(removed, va, mappers, undo);
    }
    if (added.length > 0) {
      if (va !== undefined) await mapInHostView(added, va, mappers, undo);
      await faultInFiles(added, joined);
      for (const mapper of joined) {
        await mapper.map(added);
        undo.push(() => mapper.undoMap(added));
      }
    }
    resume();
  });
}

function unmapFromHostView(
  removed: readonly SubMapping[],
  va: VaMapper,
  mappers: ReadonlySet<DmaMapper>,
  undo: Undo[],
): void {
  for (const run of runsOf(removed.filter(({ isInHostView }) => isInHostView))) {
    va.unmap(run);
    for (const sub of run) {
      undo.push(() => {
        // If a quarantine blocks it, the undo of the quarantined step reports that.
        if (quarantineAgainst(mappers, sub) === undefined) va.map(sub);
      });
    }
  }
}

/** Maps what a target maps by address, and faults it in. */
async function mapInHostView(
  added: readonly SubMapping[],
  va: VaMapper,
  mappers: ReadonlySet<DmaMapper>,
  undo: Undo[],
): Promise<void> {
  const due = mappedByHostAddress(added, mappers);
  const required: SubMapping[] = [];
  const others: SubMapping[] = [];
  for (const sub of due) {
    (isRequiredByHostAddress(sub, mappers) ? required : others).push(sub);
    undo.push(() => {
      if (!isQuarantined(mappers, sub)) va.discard(sub);
    });
  }
  const [only, ...more] = required;
  if (only !== undefined && more.length === 0) va.map(only);
  else if (only !== undefined) await va.mapAll(required);
  for (const sub of others) await mapOrRecordFailure(sub, va);
  const pending = faultIn(due, mappers, va);
  if (pending !== undefined) await pending;
}
