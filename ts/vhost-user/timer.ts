/**
 * Timers of exchanges.
 */

/**
 * Calls `expired` after a time, unless it is stopped.
 *
 * The time has two halves: if this thread was busy for long, it reads the replies that have arrived within the second.
 *
 * @param milliseconds at least 1
 * @returns stops the timer
 * @internal
 */
export function startTimer(milliseconds: number, expired: () => void): () => void {
  let timer = setTimeout(() => {
    timer = setTimeout(expired, milliseconds / 2);
  }, milliseconds / 2);
  return () => clearTimeout(timer);
}
