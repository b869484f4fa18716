/**
 * The primitive steps, and the one legal order of them: unmap from the IOMMUs before the host virtual address goes, map
 * to the IOMMUs after it has come; all that goes, goes before anything comes.
 */
import type { DmaMapper, Held } from '../dma/dma-mapper.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import type { FlatChange } from './flat-change.ts';
import type { Step } from './plan.ts';

/** The plan that takes a change of the flat map to every target. @internal */
export function changeSteps(
  { goes, comes }: FlatChange,
  mappers: Iterable<DmaMapper>,
  va: VaMapper | undefined,
): Step[] {
  const targets = [...mappers];
  const steps: Step[] = [];
  if (goes.length > 0) {
    for (const mapper of targets) steps.push(unmapFromTarget(mapper, goes, va));
    if (va !== undefined) for (const sub of goes) steps.push(invert(mapVa(sub, va)));
  }
  if (comes.length > 0) {
    if (va !== undefined) {
      for (const sub of comes) steps.push(mapVa(sub, va));
      if (targets.some((mapper) => mapper.needsVa)) for (const sub of comes) steps.push(ensureMapped(sub, va));
    }
    for (const mapper of targets) steps.push(mapToTarget(mapper, comes, va));
  }
  return steps;
}

/** Shows memory in this process. @internal */
export function mapVa(sub: SubMapping, va: VaMapper): Step & { readonly undo: () => void } {
  return { run: () => va.map(sub), undo: () => va.unmap(sub.range) };
}

/** Faults memory in. @internal */
export function ensureMapped(sub: SubMapping, va: VaMapper): Step {
  return { run: () => va.ensureMapped(sub.range), undo: () => {} };
}

/** Takes memory to one target. @internal */
export function mapToTarget(mapper: DmaMapper, subs: readonly SubMapping[], va: VaMapper | undefined): Step {
  return { run: () => mapper.map(subs, va), undo: () => mapper.withdraw(subs, va) };
}

function unmapFromTarget(mapper: DmaMapper, subs: readonly SubMapping[], va: VaMapper | undefined): Step {
  let gone: readonly Held[] = [];
  return {
    run: async () => {
      gone = await mapper.unmap(subs, va);
    },
    undo: () => mapper.restore(gone, va),
  };
}

function invert({ run, undo }: Step & { readonly undo: () => void }): Step {
  return {
    run: undo,
    undo: () => {
      void run();
    },
  };
}
