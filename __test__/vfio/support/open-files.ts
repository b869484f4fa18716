import { readdirSync, readlinkSync } from 'node:fs';

/** What this process has open of VFIO and iommufd, exported BARs among it. */
export function openVfioFiles(): string[] {
  return openFiles().filter((target) => /vfio|\/dev\/iommu|dmabuf/.test(target));
}

/** How many eventfds this process has. */
export function eventFiles(): number {
  return openFiles().filter((target) => target === 'anon_inode:[eventfd]').length;
}

function openFiles(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return []; // the descriptor of the folder itself
    }
  });
}
