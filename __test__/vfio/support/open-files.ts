import { readdirSync, readlinkSync } from 'node:fs';

/** What this process has open of VFIO and iommufd, exported BARs among it. */
export function openVfioFiles(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      return /vfio|\/dev\/iommu|dmabuf/.test(target) ? [target] : [];
    } catch {
      return []; // the descriptor of the folder itself
    }
  });
}
