/**
 * Stands between this worker and its native core, so that calls into it can be counted and made to fail.
 */
import { NativeReservation } from '#native';

/**
 * The calls that can fail with a caller who does nothing wrong. Ending a lease and closing an empty reservation are none
 * of them.
 */
export const NATIVE_CALLS = ['mapFile', 'mapPrivate', 'unmap', 'ensureMapped', 'ensureMappedAsync', 'lease'] as const;

type Before = (op: string, args: readonly unknown[]) => void;

let before: Before | undefined;

/** Calls this before each call into the native core from now on; what it throws, the call throws. */
export function interposeNative(call: Before): void {
  const first = before === undefined;
  before = call;
  if (!first) return;
  const prototype = NativeReservation.prototype as unknown as Record<string, (...args: unknown[]) => unknown>;
  for (const op of NATIVE_CALLS) {
    const real = prototype[op];
    if (real === undefined) throw new Error(`the native core has no ${op}`);
    prototype[op] = function interposed(this: unknown, ...args: unknown[]): unknown {
      before?.(op, args);
      return real.apply(this, args);
    };
  }
}

/** An error as the native core throws it when the system has no memory left. */
export function outOfMemory(op: string): Error {
  return new Error(`ERR_SYSTEM|ENOMEM|mmap||injected: ${op}`);
}

/** The offsets and lengths in the reservation that a call is about. */
export function rangesOf([first, length]: readonly unknown[]): (readonly [start: bigint, length: bigint])[] {
  if (!(first instanceof BigUint64Array)) return [[first as bigint, length as bigint]];
  return Array.from({ length: first.length / 2 }, (_, n) => [first[2 * n] as bigint, first[2 * n + 1] as bigint]);
}
