/**
 * The files below /dev by which VFIO opens a function.
 */
import type { PciFunction } from './model.ts';

/** @internal */
export interface VfioFiles {
  /** Of its group, for type1, or of a group without an IOMMU; `undefined` for a function without a group. */
  readonly byGroup: string | undefined;
  /** Its own, for iommufd; `undefined` where it has none. */
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
