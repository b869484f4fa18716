/**
 * Keeps the process alive while a call waits for an event that does not.
 */

/** The longest delay of a timer, in milliseconds. */
const LONGEST = 2 ** 31 - 1;

/**
 * Keeps the process alive.
 *
 * @param waiting is not garbage-collected meanwhile
 * @returns ends that
 * @internal
 */
export function keepAlive(waiting?: object): () => void {
  const timer = setInterval(() => void waiting, LONGEST);
  return () => clearInterval(timer);
}
