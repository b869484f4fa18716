/**
 * Makes primitive steps fail: calls of recording targets and of the native core. One module for each worker, so tests
 * that use it run one after another.
 */
import { interposeNative, outOfMemory } from './native-faults.ts';
import type { Call } from './recording-target.ts';

/** Decides by number and description which steps fail. */
export type FaultPlan = (step: number, what: string) => boolean;

const NEVER: FaultPlan = () => false;

let plan: FaultPlan = NEVER;
let taken: string[] = [];
let failed: string[] = [];

/** Counts steps from 0 from now on, and fails those of the plan. */
export function inject(next: FaultPlan): void {
  plan = next;
  taken = [];
  failed = [];
}

/** Ends the failures. @returns all steps since {@link inject}, and those that failed */
export function heal(): { readonly taken: readonly string[]; readonly failed: readonly string[] } {
  plan = NEVER;
  return { taken, failed };
}

/** Counts a step. @returns whether it fails */
function fails(what: string): boolean {
  const verdict = plan(taken.length, what);
  taken.push(what);
  if (verdict) failed.push(what);
  return verdict;
}

/** The suffix of steps that map device memory. */
export const DEVICE = ' (device)';

/** The fault decision for a recording target of that name. */
export function judgeOf(name: string): (call: Call) => unknown {
  return ({ op, range, request }) => {
    const what = `${name}: ${op} ${range}${op === 'map' && request?.kind === 'device' ? DEVICE : ''}`;
    return fails(what) ? new Error(`injected: ${what}`) : undefined;
  };
}

/**
 * Counts the calls between this worker and its native core.
 *
 * @param isDevice whether an address has device memory; a step that maps only device memory ends in {@link DEVICE}
 */
export function countNative(isDevice: (gpa: bigint) => boolean = () => false): void {
  interposeNative((op, [first]) => {
    const starts = first instanceof BigUint64Array ? [...first].filter((_, index) => index % 2 === 0) : [first];
    const device = op !== 'unmap' && starts.every((start) => typeof start === 'bigint' && isDevice(start));
    if (fails(`native: ${op}${device ? DEVICE : ''}`)) throw outOfMemory(op);
  });
}
