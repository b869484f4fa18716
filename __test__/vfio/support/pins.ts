/**
 * How many pages the kernel has pinned for devices, by its own count.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Reading it, as root, makes the kernel add up what its CPUs have counted each for itself. */
const REFRESH = '/proc/sys/vm/stat_refresh';
const FIELDS = /^nr_foll_pin_(acquired|released) (\d+)$/gm;

/** Pinned now: two counters that only grow, one less the other. */
export function pinnedPages(): number {
  readFileSync(REFRESH);
  return pinnedRoughly();
}

/** The same without asking the CPUs, which have to be idle to answer: a little behind, but good while pages are pinned. */
export function pinnedRoughly(): number {
  const counts = { acquired: NaN, released: NaN };
  for (const [, name = '', value] of readFileSync('/proc/vmstat', 'utf8').matchAll(FIELDS)) {
    counts[name as keyof typeof counts] = Number(value);
  }
  return counts.acquired - counts.released;
}

/**
 * What stays pinned: the least over a while. The system pins pages for transfers of its own too, for moments, and so a
 * single look may count some of those.
 */
export async function pinnedAtRest(looks: number = 10): Promise<number> {
  let least = pinnedPages();
  for (let look = 1; look < looks; look++) {
    await sleep(20);
    least = Math.min(least, pinnedPages());
  }
  return least;
}

/** Pinned once the kernel has come to rest: the files of a process that dies are closed a little after its end. */
export async function pinnedAtLast(patience: number = 10_000): Promise<number> {
  const deadline = Date.now() + patience;
  for (;;) {
    const pinned = pinnedPages();
    if (pinned === 0 || Date.now() > deadline) return pinned;
    await sleep(20);
  }
}
