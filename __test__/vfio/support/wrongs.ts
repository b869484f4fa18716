/**
 * Calls that have to be refused.
 */
import type { NativeMemoryFile, NativePrivateMemory, NativeReservation } from '#native';
import type { ExecutionContext } from 'ava';
import type { Place } from './exposed-memory.ts';

/** With the code that it is refused with; `null` is for what does no harm. */
export type Wrong = readonly [what: string, code: string | null, call: () => unknown];

const PAGE = 0x1000n;

/** Does all of a list of wrongs. */
export function attempt(t: ExecutionContext, wrongs: readonly Wrong[]): void {
  for (const [what, code, wrong] of wrongs) {
    if (code === null) t.notThrows(wrong, what);
    else t.throws(wrong, { message: new RegExp(`^(?:${code})(?:\\b|\\|)`) }, what);
  }
}

/**
 * Everything that would take memory away from under a mapping.
 *
 * @param file has a page
 * @param other has a page too
 */
export function takingAway(
  { at, length }: Place,
  { reservation, file }: { readonly reservation: NativeReservation; readonly file: NativeMemoryFile },
  other: NativePrivateMemory,
): Wrong[] {
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
