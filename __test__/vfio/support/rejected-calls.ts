/**
 * Native calls that must be rejected.
 */
import type { NativeMemoryFile, NativePrivateMemory, NativeReservation } from '#native';
import type { ExecutionContext } from 'ava';
import type { Place } from './exposed-memory.ts';
import { codeAndErrno } from '../../support/native-error.ts';

/** A call with the error code that it must throw; `null` if it must succeed without harm. */
export type RejectedCall = readonly [what: string, code: string | null, call: () => unknown];

const PAGE = 0x1000n;

/** Makes all calls and asserts their errors. */
export function assertRejected(t: ExecutionContext, calls: readonly RejectedCall[]): void {
  for (const [what, code, call] of calls) {
    if (code === null) t.notThrows(call, what);
    else t.regex(codeAndErrno(t.throws(call, undefined, what)), new RegExp(`^(?:${code})\\b`), what);
  }
}

/**
 * All calls that would unmap or replace memory under a mapping.
 *
 * @param file a file of at least one page
 * @param other private memory of at least one page
 */
export function unmapCalls(
  { at, length }: Place,
  { reservation, file }: { readonly reservation: NativeReservation; readonly file: NativeMemoryFile },
  other: NativePrivateMemory,
): RejectedCall[] {
  const inUse = 'ERR_VA_IN_USE';
  return [
    ['unmap all of it', inUse, () => reservation.unmap(at, length)],
    ['unmap its first page', inUse, () => reservation.unmap(at, PAGE)],
    ['unmap its last page', inUse, () => reservation.unmap(at + length - PAGE, PAGE)],
    ['unmap the middle', inUse, () => reservation.unmap(at + length / 2n, 2n * PAGE)],
    ['unmap past its end', inUse, () => reservation.unmap(at + length - PAGE, 16n * PAGE)],
    ['unmap everything', inUse, () => reservation.unmap(0n, reservation.length)],
    ['a file over its first page', inUse, () => reservation.mapFile(at, PAGE, file, 0n, true, false)],
    ['a file over its end', inUse, () => reservation.mapFile(at + length - PAGE, 2n * PAGE, file, 0n, true, false)],
    ['private memory over it', inUse, () => reservation.mapPrivate(at, PAGE, other, 0n)],
    ['close the reservation', inUse, () => reservation.close()],
  ];
}
