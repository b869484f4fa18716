import { openFiles } from '../../support/open-files.ts';

/** What this process has open of VFIO and iommufd, exported BARs among it. */
export function openVfioFiles(): string[] {
  return openFiles().filter((target) => /vfio|\/dev\/iommu|dmabuf/.test(target));
}

/** How many eventfds this process has. */
export function eventFiles(): number {
  return openFiles().filter((target) => target === 'anon_inode:[eventfd]').length;
}
