/**
 * Formats lengths and times for people. The functions also run in the page, so they use nothing but one another.
 */

/** Formats a number of bytes in the largest unit in which it is at least 1: `64 KiB`, `1.94 GiB`. */
export function lengthText(bytes: bigint): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let unit = 0;
  let size = bytes;
  while (size >= 1024n && unit < units.length - 1) {
    size /= 1024n;
    unit++;
  }
  const exact = Number(bytes) / 1024 ** unit;
  return `${Number.isInteger(exact) ? exact : exact.toFixed(2)} ${units[unit]}`;
}

/** Formats the time that elapsed between two moments: `+1.250 s`. */
export function elapsedText(start: string, time: string): string {
  const seconds = (Date.parse(time) - Date.parse(start)) / 1000;
  return Number.isFinite(seconds) ? `+${seconds.toFixed(3)} s` : time;
}
