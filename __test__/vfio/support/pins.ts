/**
 * The number of pages that the kernel has pinned for devices, by its own count.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** A read of it by root makes the kernel add up the counts of all CPUs. */
const REFRESH = '/proc/sys/vm/stat_refresh';
const FIELDS = /^nr_foll_pin_(acquired|released) (\d+)$/gm;

/** The number of pinned pages: the difference of two counters that only grow. */
export function pinnedPages(): number {
  readFileSync(REFRESH);
  return pinnedRoughly();
}

/**
 * The same without the CPUs' own counts, which only idle CPUs report. Slightly late, but usable while pages are pinned.
 */
export function pinnedRoughly(): number {
  const counts = { acquired: NaN, released: NaN };
  for (const [, name = '', value] of readFileSync('/proc/vmstat', 'utf8').matchAll(FIELDS)) {
    counts[name as keyof typeof counts] = Number(value);
  }
  return counts.acquired - counts.released;
}

/**
 * The lowest number over a while. The system pins pages for its own transfers too, for moments, so a single value may
 * count some of those.
 */
export async function pinnedAtRest(looks: number = 10): Promise<number> {
  let least = pinnedPages();
  for (let look = 1; look < looks; look++) {
    await sleep(20);
    least = Math.min(least, pinnedPages());
  }
  return least;
}

/** The number of pinned pages once it is stable. The files of a process that dies are closed shortly after its end. */
export async function pinnedAtLast(patience: number = 10_000): Promise<number> {
  const deadline = Date.now() + patience;
  for (;;) {
    const pinned = pinnedPages();
    if (pinned === 0 || Date.now() > deadline) return pinned;
    await sleep(20);
  }
}
