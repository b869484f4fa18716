import { readdirSync, readlinkSync } from 'node:fs';

/** What this process has open of VFIO. */
export function openVfioFiles(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      return /vfio/.test(target) ? [target] : [];
    } catch {
      return []; // the descriptor of the folder itself
    }
  });
}
