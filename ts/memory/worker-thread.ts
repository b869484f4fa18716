/**
 * Decides whether work on memory runs on a worker thread instead of the event loop.
 */

/** Clearing or pinning a page takes about a microsecond. */
const MAX_EVENT_LOOP_BYTES = 1n << 20n;

/** Whether the memory of these items is too large to be cleared or pinned on the event loop. @internal */
export function needsWorkerThread<T>(items: readonly T[], lengthOf: (item: T) => bigint): boolean {
  let bytes = 0n;
  return items.some((item) => (bytes += lengthOf(item)) > MAX_EVENT_LOOP_BYTES);
}
