/**
 * The files below /dev that VFIO opens a function by.
 */
import type { PciFunction } from './model.ts';

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
