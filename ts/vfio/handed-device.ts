/**
 * Devices whose files another process has opened, such as a launcher with more privileges.
 */
import { readArray, readOptions, requireIndex, requireUnsigned } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { deviceName } from '../host/address.ts';
import {
  type DescriptorSource,
  type OwnedDescriptor,
  descriptorNumber,
  duplicateDescriptor,
} from '../owned-descriptor.ts';

/** The regions with a host address: BARs 0 to 5 and the ROM. */
const REGIONS = 7;

/**
 * A device by descriptors: of its own file (`cdev`) for iommufd, or of its group for type1.
 *
 * The descriptors are duplicated: the caller still owns the given ones, and can close them as soon as `open` has
 * returned its promise. Both keep the device in use until they are closed.
 */
export interface HandedDevice {
  /**
   * PCI address, or the UUID of a mediated device. Type1 opens the device by it. With iommufd it is a label: the kernel
   * does not compare it with the file.
   */
  readonly bdf: string;
  /** An open `/dev/vfio/devices/vfioN` that is not bound yet. */
  readonly cdev?: DescriptorSource | undefined;
  /** An open `/dev/vfio/GROUP`, in no container. Devices of a group may share the file. */
  readonly group?: DescriptorSource | undefined;
  /**
   * An open `/dev/vfio/vfio` without an IOMMU, for a group that joins no existing container. Default: opened by this
   * process
   */
  readonly container?: DescriptorSource | undefined;
  /** Number of its IOMMU group. Default: that in `/sys` */
  readonly iommuGroup?: number | undefined;
  /** Host addresses of BARs 0 to 5 and the ROM. Default: those in `/sys`, and none without `/sys` */
  readonly hostAddresses?: readonly (bigint | undefined)[] | undefined;
}

/** Duplicates of the descriptors of a device, and the facts that were passed with them. @internal */
export interface HandedFiles {
  readonly cdev: OwnedDescriptor | undefined;
  readonly group: OwnedDescriptor | undefined;
  readonly container: OwnedDescriptor | undefined;
  readonly bdf: string;
  readonly iommuGroup: number | undefined;
  readonly hostAddresses: readonly (bigint | undefined)[] | undefined;
}

/**
 * Checks a device of the caller and duplicates its descriptors.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`; `ERR_OUT_OF_RANGE` for a host address
 * @internal
 */
export function takeHandedDevice(device: HandedDevice): HandedFiles {
  const names = ['bdf', 'cdev', 'group', 'container', 'iommuGroup', 'hostAddresses'] as const;
  const given = readOptions(device, names, 'the device');
  const bdf = deviceName(given.bdf);
  const { iommuGroup } = given;
  if (iommuGroup !== undefined) requireIndex(iommuGroup, 'iommuGroup');
  if ((given.cdev === undefined) === (given.group === undefined)) {
    throw refused(bdf, 'either its own file or that of its group is needed. Pass "cdev" or "group"');
  }
  if (given.cdev !== undefined && given.container !== undefined) {
    throw refused(bdf, 'a container holds groups, and no device by its own file. Pass "group", or no "container"');
  }
  const addresses = given.hostAddresses === undefined ? undefined : readHostAddresses(bdf, given.hostAddresses);
  const taken: OwnedDescriptor[] = [];
  const take = (name: 'cdev' | 'group' | 'container'): OwnedDescriptor | undefined => {
    const source = given[name];
    if (source === undefined) return undefined;
    const own = duplicateDescriptor(descriptorNumber(source, name));
    taken.push(own);
    return own;
  };
  try {
    const files = { cdev: take('cdev'), group: take('group'), container: take('container') };
    return { ...files, bdf, iommuGroup, hostAddresses: addresses };
  } catch (error) {
    for (const own of taken) own.close();
    throw error;
  }
}

/** Closes the duplicates. @internal */
export function closeFiles({ cdev, group, container }: HandedFiles): void {
  for (const own of [cdev, group, container]) own?.close();
}

function readHostAddresses(bdf: string, given: readonly (bigint | undefined)[]): (bigint | undefined)[] {
  const addresses = readArray(given, 'hostAddresses');
  if (addresses.length > REGIONS) {
    throw refused(bdf, `"hostAddresses" has BARs 0 to 5 and the ROM, and ${addresses.length} were passed`);
  }
  for (const address of addresses) if (address !== undefined) requireUnsigned(address, 'hostAddresses');
  return addresses;
}

function refused(bdf: string, reason: string): PeerDmaError {
  return new PeerDmaError('ERR_INVALID_ARGUMENT', `${bdf}: opening by descriptors failed: ${reason}.`, { bdf });
}
