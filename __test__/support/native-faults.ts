/**
 * Intercepts the calls between this worker and its native core, to count them and to make them fail.
 */
import {
  type NativeError,
  type NativeFailure,
  NativeMemoryFile,
  NativePrivateMemory,
  NativeReservation,
} from '#native';
import { nativeError } from './native-error.ts';

/**
 * The calls that can fail for a correct caller. Releasing a lease and closing an empty reservation are not among them.
 */
export const NATIVE_CALLS = ['mapFile', 'mapPrivate', 'unmap', 'ensureMapped', 'ensureMappedAsync', 'lease'] as const;

/** Calls of memory that is not mapped. */
const PAGE_CALLS = ['faultIn', 'discard'] as const;

/** Words of a part that `mapFiles` takes; the first two are offset and length. */
const PART = 4;

type Before = (op: string, args: readonly unknown[]) => void;

let before: Before | undefined;

/** Calls `before` before each native call from now on. An exception that it throws is that of the native call. */
export function interposeNative(call: Before): void {
  const first = before === undefined;
  before = call;
  if (!first) return;
  interposeMethods(NativeReservation.prototype, NATIVE_CALLS);
  interposeMapFiles(NativeReservation.prototype);
  for (const { prototype } of [NativeMemoryFile, NativePrivateMemory]) interposeMethods(prototype, PAGE_CALLS, false);
}

/** @param hasAddresses whether the arguments are addresses of the reservation */
function interposeMethods(prototype: object, ops: readonly string[], hasAddresses = true): void {
  const methods = prototype as Record<string, (...args: unknown[]) => unknown>;
  for (const op of ops) {
    const real = methods[op];
    if (real === undefined) throw new Error(`the native core has no ${op}`);
    methods[op] = function interposed(this: unknown, ...args: unknown[]): unknown {
      before?.(op, hasAddresses ? args : []);
      return real.apply(this, args);
    };
  }
}

/**
 * Makes `mapFiles` count as a call of `mapFile` for each part. Parts before a failing one are mapped, as in the core.
 */
function interposeMapFiles(prototype: NativeReservation): void {
  const real = prototype.mapFiles;
  const failureIn = (words: BigUint64Array): NativeFailure | undefined => {
    for (let index = 0; index < words.length / PART; index++) {
      try {
        before?.('mapFile', [...words.subarray(index * PART, index * PART + 2)]);
      } catch (error) {
        return { index, error: error as NativeError };
      }
    }
    return undefined;
  };
  prototype.mapFiles = function interposed(files, words) {
    const failure = failureIn(words);
    if (failure === undefined) return real.call(this, files, words);
    return real.call(this, files, words.subarray(0, failure.index * PART)) ?? failure;
  };
  prototype.mapFilesAsync = async function interposed(files, words) {
    return this.mapFiles(files, words);
  };
}

/** An error as the native core throws it when the system has no memory left. */
export function outOfMemory(op: string): Error {
  return nativeError('ERR_SYSTEM', `injected: ${op}`, { errno: 'ENOMEM', syscall: 'mmap' });
}

/** The offsets and lengths in the reservation that a call affects. */
export function rangesOf([first, length]: readonly unknown[]): (readonly [start: bigint, length: bigint])[] {
  if (!(first instanceof BigUint64Array)) return [[first as bigint, length as bigint]];
  return Array.from({ length: first.length / 2 }, (_, n) => [first[2 * n] as bigint, first[2 * n + 1] as bigint]);
}
