/**
 * Facts of /sys for opening a device, by `SysFiles`. Unlike `readHost`, without config space.
 */
import { release } from 'node:os';
import { PeerDmaError } from '../errors.ts';
import { deviceName, isMediatedName, noSuchDevice } from '../host/address.ts';
import { keepsDirectRegions } from '../host/direct-regions.ts';
import { GROUPS, readGroupNumbers, readGroups, readReserved } from '../host/iommu.ts';
import type { UnknownFact } from '../host/model.ts';
import { readResources } from '../host/resources.ts';
import { DEVICES, SysFiles } from '../host/sys-files.ts';
import { DMA_BUFS_SINCE, type KernelVersion, isAtLeast, versionOf } from '../host/system/kernel.ts';
import { readVfioFile } from '../host/vfio-files.ts';
import { type RefusalFacts, noIommuGroup, unknownGroup } from './opening-errors.ts';
import type { HandedFiles } from './handed-device.ts';
import type { RequestedDevice } from './vf-token.ts';

/** @internal */
export interface PciDevice {
  /** PCI address, or the UUID of a mediated device. */
  readonly bdf: string;
  /** Whether it is a mediated device: its driver is one of VFIO, and its group has no IOMMU. */
  readonly isMediated?: boolean;
  /** Name of its driver, if it has one. */
  readonly driver: string | undefined;
  readonly iommuGroup: number | undefined;
  /** Whether the IOMMU is on but this device is not in a group. */
  readonly isLeftOut?: boolean;
}

/** The folder of mediated devices. */
const MEDIATED_DEVICES = 'bus/mdev/devices';

/** VFIO's regions with an address: BARs 0 to 5 and the ROM. */
const REGIONS = 7;

/** Reads devices and groups below a root, which is /sys except in tests. @internal */
export class Sysfs {
  readonly #root: string;
  readonly #kernel: KernelVersion | UnknownFact;

  /** @param kernel version of the kernel to which /sys belongs */
  constructor(root = '/sys', kernel: KernelVersion | UnknownFact = root === '/sys' ? versionOf(release()) : 'unknown') {
    this.#root = root;
    this.#kernel = kernel;
  }

  /** A new reader for each call: findings of earlier calls would accumulate unread. */
  get #files(): SysFiles {
    return new SysFiles(this.#root);
  }

  /**
   * @param bdf `0000:01:00.0`, or `01:00.0` in the first domain; the UUID of a mediated device
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_DEVICE_NOT_FOUND`
   */
  device(bdf: string): PciDevice {
    const full = deviceName(bdf);
    if (isMediatedName(full)) return this.#mediated(full);
    const files = this.#files;
    const folder = `${DEVICES}/${full}`;
    if (!files.isFolder(folder)) throw noSuchDevice(full);
    const driver = files.linkName(`${folder}/driver`);
    const group = usableGroup(files, folder, false);
    if (group !== undefined) return { bdf: full, driver, iommuGroup: group };
    return { bdf: full, driver, iommuGroup: undefined, isLeftOut: readGroups(files).size > 0 };
  }

  /** Returns a device that another process has opened; of facts that were not passed, those in /sys. */
  handedDevice(files: HandedFiles): RequestedDevice {
    const { bdf, iommuGroup } = files;
    const sys = this.#files;
    const folder = folderOf(bdf);
    const isMediated = isMediatedName(bdf);
    const known = sys.isFolder(folder) ? usableGroup(sys, folder, isMediated) : undefined;
    return { bdf, isMediated, driver: sys.linkName(`${folder}/driver`), iommuGroup: iommuGroup ?? known, files };
  }

  /** Returns the host addresses of BARs 0 to 5 and the ROM of a device that another process has opened. */
  handedAddresses({ bdf, hostAddresses }: HandedFiles): readonly (bigint | undefined)[] {
    if (hostAddresses !== undefined) return hostAddresses;
    return this.#files.isFolder(folderOf(bdf)) ? this.hostAddresses(bdf) : [];
  }

  /**
   * Returns the host addresses of BARs 0 to 5 and the ROM, in this order; `undefined` for a missing one.
   *
   * @param bdf as in {@link PciDevice}
   * @throws {PeerDmaError} `ERR_DEVICE_NOT_FOUND` if the device was removed or its resources cannot be read
   */
  hostAddresses(bdf: string): (bigint | undefined)[] {
    if (isMediatedName(bdf)) return Array.from({ length: REGIONS }, () => undefined);
    const files = this.#files;
    const { bars } = readResources(files, `${DEVICES}/${bdf}`, false);
    if (bars.length === 0 && files.text(`${DEVICES}/${bdf}/resource`) === undefined) throw noSuchDevice(bdf);
    return Array.from({ length: REGIONS }, (_, region) => bars.find(({ index }) => index === region)?.address);
  }

  /** Returns the number of the device file `/dev/vfio/devices/vfioN`; `undefined` if the device has none. */
  deviceFile(bdf: string): number | undefined {
    const name = readVfioFile(this.#files, folderOf(bdf));
    return name === undefined ? undefined : Number(name.slice('vfio'.length));
  }

  /** Returns facts that explain why the kernel rejects a device; `undefined` if /sys does not have it. */
  refusalFacts({ bdf, iommuGroup, vfToken }: RequestedDevice): RefusalFacts | undefined {
    const files = this.#files;
    const folder = folderOf(bdf);
    if (!files.isFolder(folder)) return undefined;
    const physical = files.linkName(`${folder}/physfn`);
    return {
      token: {
        given: vfToken !== undefined,
        physicalFunction:
          physical === undefined ? undefined : { bdf: physical, driver: files.linkName(`${folder}/physfn/driver`) },
        isPhysicalFunction: files.has(`${folder}/sriov_totalvfs`),
      },
      group: iommuGroup,
      directRegions: iommuGroup === undefined ? undefined : this.#directRegions(files, iommuGroup, folder),
    };
  }

  /** Whether the kernel, by its version, can export BARs as dma-bufs. */
  get exportsBars(): boolean | UnknownFact {
    return this.#kernel === 'unknown' ? 'unknown' : isAtLeast(this.#kernel, DMA_BUFS_SINCE);
  }

  #mediated(uuid: string): PciDevice {
    const files = this.#files;
    const folder = folderOf(uuid);
    if (!files.isFolder(folder)) {
      const text = `there is no mediated device ${uuid}. List /sys/${MEDIATED_DEVICES}.`;
      throw new PeerDmaError('ERR_DEVICE_NOT_FOUND', text, { bdf: uuid });
    }
    const driver = files.linkName(`${folder}/driver`);
    return { bdf: uuid, isMediated: true, driver, iommuGroup: usableGroup(files, folder, true) };
  }

  /** Returns `undefined` if they are not known, and none if the kernel ignores them for VFIO. */
  #directRegions(files: SysFiles, group: number, folder: string): RefusalFacts['directRegions'] {
    const iommu = `${folder}/iommu`;
    const kind = files.has(`${iommu}/intel-iommu`) ? 'intel' : files.has(iommu) ? 'unknown' : undefined;
    if (keepsDirectRegions(kind, this.#kernel) === false) return [];
    const reserved = readReserved(files, group);
    return reserved === 'unknown' ? undefined : reserved.filter((range) => range.kind === 'direct');
  }

  /**
   * Returns all devices of a group, sorted. A device that is not a PCI function has its name in place of an address.
   */
  group(id: number): PciDevice[] {
    const files = this.#files;
    const path = `${GROUPS}/${id}/devices`;
    return files.names(path).map((bdf) => {
      const driver = files.linkName(`${DEVICES}/${bdf}/driver`) ?? files.linkName(`${path}/${bdf}/driver`);
      return { bdf, driver, iommuGroup: id };
    });
  }
}

/**
 * Returns the group through which VFIO opens a device.
 *
 * The kernel makes a group without an IOMMU for each mediated device (Linux `vfio_register_emulated_iommu_dev`). Of
 * another device, containers do not accept such a group.
 */
function usableGroup(files: SysFiles, folder: string, isMediated: boolean): number | undefined {
  const { group, noIommuGroup } = readGroupNumbers(files, folder);
  return group ?? (isMediated ? noIommuGroup : undefined);
}

function folderOf(bdf: string): string {
  return isMediatedName(bdf) ? `${MEDIATED_DEVICES}/${bdf}` : `${DEVICES}/${bdf}`;
}

/**
 * Returns the group of a device.
 *
 * @throws {PeerDmaError} `ERR_NO_IOMMU_GROUP`; `ERR_INVALID_ARGUMENT` if another process has opened it and its group is
 * not known
 * @internal
 */
export function groupOf({ bdf, iommuGroup, isLeftOut = false, files }: RequestedDevice): number {
  if (iommuGroup !== undefined) return iommuGroup;
  throw files === undefined ? noIommuGroup(bdf, isLeftOut) : unknownGroup(bdf);
}
