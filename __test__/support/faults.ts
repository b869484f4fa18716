/**
 * Makes primitive steps fail: the calls of recording targets, and those into the native core. One module for each worker,
 * so tests that use it run one after another.
 */
import { interposeNative, outOfMemory } from './native-faults.ts';
import type { Call } from './recording-target.ts';

/** Which of the steps fail, by their number and by what they do. */
export type FaultPlan = (step: number, what: string) => boolean;

const NEVER: FaultPlan = () => false;

let plan: FaultPlan = NEVER;
let taken: string[] = [];
let failed: string[] = [];

/** From now on steps are counted from 0, and fail as planned. */
export function inject(next: FaultPlan): void {
  plan = next;
  taken = [];
  failed = [];
}

/** Nothing fails any more. @returns all steps since {@link inject}, and those that failed */
export function heal(): { readonly taken: readonly string[]; readonly failed: readonly string[] } {
  plan = NEVER;
  return { taken, failed };
}

/** Counts a step. @returns whether it is to fail */
function fails(what: string): boolean {
  const verdict = plan(taken.length, what);
  taken.push(what);
  if (verdict) failed.push(what);
  return verdict;
}

/** How the steps that map device memory end. */
export const DEVICE = ' (device)';

/** The judge for a recording target of that name. */
export function judgeOf(name: string): (call: Call) => unknown {
  return ({ op, range, request }) => {
    const what = `${name}: ${op} ${range}${op === 'map' && request?.kind === 'device' ? DEVICE : ''}`;
    return fails(what) ? new Error(`injected: ${what}`) : undefined;
  };
}

/**
 * Puts the counting between this worker and its native core.
 *
 * @param isDevice whether device memory is at an address: what maps it alone ends in {@link DEVICE}
 */
export function countNative(isDevice: (gpa: bigint) => boolean = () => false): void {
  interposeNative((op, [first]) => {
    const starts = first instanceof BigUint64Array ? [...first].filter((_, index) => index % 2 === 0) : [first];
    const device = op !== 'unmap' && starts.every((start) => typeof start === 'bigint' && isDevice(start));
    if (fails(`native: ${op}${device ? DEVICE : ''}`)) throw outOfMemory(op);
  });
}
