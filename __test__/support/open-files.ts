import { readdirSync, readlinkSync } from 'node:fs';

/** What each descriptor of this process is, as /proc names it. */
export function openFiles(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return []; // the descriptor of the folder itself
    }
  });
}
