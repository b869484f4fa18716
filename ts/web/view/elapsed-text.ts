/**
 * Times of a journal.
 */

/** Formats the time that elapsed between two moments: `+1.250 s`. */
export function elapsedText(start: string, time: string): string {
  const seconds = (Date.parse(time) - Date.parse(start)) / 1000;
  return Number.isFinite(seconds) ? `+${seconds.toFixed(3)} s` : time;
}
