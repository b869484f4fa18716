/**
 * The files below /dev that VFIO opens a function by.
 */
import type { PciFunction } from './model.ts';
import type { SysFiles } from './sys-files.ts';

/** @internal */
export interface VfioFiles {
  /** File of the group, for type1 or without an IOMMU; `undefined` for a function without a group. */
  readonly byGroup: string | undefined;
  /** Device file of the function, for iommufd; `undefined` if it has none. */
  readonly own: string | undefined;
}

/** @internal */
export function filesOf({
  group,
  noIommuGroup,
  vfioFile,
}: Pick<PciFunction, 'group' | 'noIommuGroup' | 'vfioFile'>): VfioFiles {
  const groupFile = group ?? (noIommuGroup === undefined ? undefined : `noiommu-${noIommuGroup}`);
  return {
    byGroup: groupFile === undefined ? undefined : `/dev/vfio/${groupFile}`,
    own: vfioFile === undefined ? undefined : `/dev/vfio/devices/${vfioFile}`,
  };
}

/** Returns the name of the device file below /dev/vfio/devices. @internal */
export function readVfioFile(files: SysFiles, folder: string): string | undefined {
  return files.names(`${folder}/vfio-dev`).find((name) => /^vfio\d+$/.test(name));
}
