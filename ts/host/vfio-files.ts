/**
 * The files below /dev by which VFIO opens a function.
 */
import type { PciFunction } from './model.ts';

/** @internal */
export interface VfioFiles {
  /** Of its group, for type1; `undefined` where it is in none. */
  readonly byGroup: string | undefined;
  /** Its own, for iommufd; `undefined` where it has none. */
  readonly own: string | undefined;
}

/** @internal */
export function filesOf({ group, vfioFile }: Pick<PciFunction, 'group' | 'vfioFile'>): VfioFiles {
  return {
    byGroup: group === undefined ? undefined : `/dev/vfio/${group}`,
    own: vfioFile === undefined ? undefined : `/dev/vfio/devices/${vfioFile}`,
  };
}
