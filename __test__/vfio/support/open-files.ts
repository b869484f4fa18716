import { openFiles } from '../../support/open-files.ts';

/** The open files of VFIO and iommufd in this process, exported BARs included. */
export function openVfioFiles(): string[] {
  return openFiles().filter((target) => /vfio|\/dev\/iommu|dmabuf/.test(target));
}

/** The number of eventfds of this process. */
export function eventFiles(): number {
  return openFiles().filter((target) => target === 'anon_inode:[eventfd]').length;
}
