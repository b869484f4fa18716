/**
 * Opens and closes /dev/vfio/vfio and /dev/iommu to find out whether they work. Does not touch devices.
 */
import { NativeVfioContainer } from '#native';
import { PeerDmaError } from '../errors.ts';
import { native } from '../native-call.ts';
import { containerUnavailable, iommufdUnavailable } from '../vfio/opening-errors.ts';
import { SharedIommufd } from '../vfio/iommufd/shared-iommufd.ts';

/** @internal */
export interface Probes {
  /** Result for /dev/vfio/vfio; an error as `VfioContainerManager` would throw it. */
  readonly type1: 'opened' | PeerDmaError;
  /** Result for /dev/iommu; an error as `VfioContainerManager` would throw it. */
  readonly iommufd: { readonly mapsFiles: boolean } | PeerDmaError;
}

/** @internal */
export function probe(): Probes {
  return {
    type1: probeOrError(openContainer, containerUnavailable),
    iommufd: probeOrError(openIommufd, iommufdUnavailable),
  };
}

function openContainer(): 'opened' {
  native(() => NativeVfioContainer.open()).close();
  return 'opened';
}

function openIommufd(): { mapsFiles: boolean } {
  const shared = native(() => SharedIommufd.open());
  try {
    return { mapsFiles: shared.iommufd.mapsFiles };
  } finally {
    shared.release();
  }
}

function probeOrError<T>(open: () => T, toUserError: (error: PeerDmaError) => PeerDmaError): T | PeerDmaError {
  try {
    return open();
  } catch (error) {
    if (!(error instanceof PeerDmaError)) throw error;
    return toUserError(error);
  }
}
