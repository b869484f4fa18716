/**
 * Reads PCI devices and IOMMU groups from /sys.
 */
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { release } from 'node:os';
import { basename, join } from 'node:path';
import { noSuchDevice, pciAddress } from '../host/address.ts';
import { keepsDirectRegions } from '../host/direct-regions.ts';
import { NO_IOMMU_NAME, readGroups } from '../host/iommu.ts';
import type { UnknownFact } from '../host/model.ts';
import { SysFiles } from '../host/sys-files.ts';
import { type KernelVersion, versionOf } from '../host/system/kernel.ts';
import { type RefusalFacts, noIommuGroup } from './opening-errors.ts';
import type { RequestedDevice } from './vf-token.ts';

/** @internal */
export interface PciDevice {
  readonly bdf: string;
  /** Name of its driver, if it has one. */
  readonly driver: string | undefined;
  readonly iommuGroup: number | undefined;
  /** Whether the IOMMU is on but this device is not in a group. */
  readonly isLeftOut?: boolean;
}

/** BARs 0 to 5 and the ROM. Later lines (windows of bridges, virtual functions) are not regions. */
const RESOURCES = 7;

/** Reads devices and groups below a root, which is /sys except in tests. @internal */
export class Sysfs {
  readonly #root: string;
  readonly #kernel: KernelVersion | UnknownFact;

  /** @param kernel version of the kernel to which /sys belongs */
  constructor(root = '/sys', kernel: KernelVersion | UnknownFact = root === '/sys' ? versionOf(release()) : 'unknown') {
    this.#root = root;
    this.#kernel = kernel;
  }

  /**
   * @param bdf `0000:01:00.0`, or `01:00.0` in the first domain
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_DEVICE_NOT_FOUND`
   */
  device(bdf: string): PciDevice {
    const full = pciAddress(bdf);
    const path = join(this.#root, 'bus/pci/devices', full);
    if (!existsSync(path)) throw noSuchDevice(full);
    const driver = target(join(path, 'driver'));
    const group = numberOf(target(join(path, 'iommu_group')));
    if (group !== undefined && !this.#isWithoutIommu(group)) return { bdf: full, driver, iommuGroup: group };
    const isLeftOut = readGroups(new SysFiles(this.#root)).size > 0;
    return { bdf: full, driver, iommuGroup: undefined, isLeftOut };
  }

  /** Whether VFIO made the group for a device without an IOMMU, which containers do not accept. */
  #isWithoutIommu(group: number): boolean {
    return textOf(join(this.#root, 'kernel/iommu_groups', String(group), 'name'))?.trim() === NO_IOMMU_NAME;
  }

  /**
   * Returns the host addresses of BARs 0 to 5 and the ROM, in this order; `undefined` for a missing one.
   *
   * @param bdf as in {@link PciDevice}
   * @throws {PeerDmaError} `ERR_DEVICE_NOT_FOUND` if the device was removed
   */
  hostAddresses(bdf: string): (bigint | undefined)[] {
    // Lines of first address, last address and flags (Linux, Documentation/PCI/sysfs-pci.rst).
    const text = textOf(join(this.#root, 'bus/pci/devices', bdf, 'resource'));
    if (text === undefined) throw noSuchDevice(bdf);
    const lines = text.split('\n');
    return lines.slice(0, RESOURCES).map((line) => {
      const [, start = '0'] = /^(0x[0-9a-f]+) /.exec(line) ?? [];
      return BigInt(start) || undefined;
    });
  }

  /** Returns the number of the device file `/dev/vfio/devices/vfioN`; `undefined` if the device has none. */
  deviceFile(bdf: string): number | undefined {
    const number = namesIn(join(this.#root, 'bus/pci/devices', bdf, 'vfio-dev'))
      .map((name) => /^vfio(\d+)$/.exec(name)?.[1])
      .find((found) => found !== undefined);
    return number === undefined ? undefined : Number(number);
  }

  /** Returns facts that explain why the kernel rejects a device. */
  refusalFacts({ bdf, iommuGroup, vfToken }: RequestedDevice): RefusalFacts {
    const path = join(this.#root, 'bus/pci/devices', bdf);
    const physical = target(join(path, 'physfn'));
    return {
      token: {
        given: vfToken !== undefined,
        physicalFunction:
          physical === undefined ? undefined : { bdf: physical, driver: target(join(path, 'physfn/driver')) },
        isPhysicalFunction: existsSync(join(path, 'sriov_totalvfs')),
      },
      group: iommuGroup,
      directRegions: iommuGroup === undefined ? undefined : this.#directRegions(iommuGroup, path),
    };
  }

  /**
   * Reads lines of first address, last address and kind (Linux `iommu_group_show_resv_regions`). Returns `undefined` if
   * they are not known, and none if the kernel ignores them for VFIO.
   */
  #directRegions(group: number, bdf: string): RefusalFacts['directRegions'] {
    const iommu = join(bdf, 'iommu');
    const kind = existsSync(join(iommu, 'intel-iommu')) ? 'intel' : existsSync(iommu) ? 'unknown' : undefined;
    if (keepsDirectRegions(kind, this.#kernel) === false) return [];
    const path = join(this.#root, 'kernel/iommu_groups', String(group), 'reserved_regions');
    const text = textOf(path);
    if (text === undefined) return undefined;
    const found = text.matchAll(/^0x([0-9a-f]+) 0x([0-9a-f]+) direct$/gm);
    return [...found].map(([, first, last]) => ({ start: BigInt(`0x${first}`), end: BigInt(`0x${last}`) + 1n }));
  }

  /**
   * Returns all devices of a group, sorted. A device that is not a PCI function has its name in place of an address.
   */
  group(id: number): PciDevice[] {
    const path = join(this.#root, 'kernel/iommu_groups', String(id), 'devices');
    return namesIn(path).map((bdf) => {
      const driver = target(join(this.#root, 'bus/pci/devices', bdf, 'driver')) ?? target(join(path, bdf, 'driver'));
      return { bdf, driver, iommuGroup: id };
    });
  }
}

/** Returns the group of a device. @throws {PeerDmaError} `ERR_NO_IOMMU_GROUP` @internal */
export function groupOf({ bdf, iommuGroup, isLeftOut = false }: PciDevice): number {
  if (iommuGroup === undefined) throw noIommuGroup(bdf, isLeftOut);
  return iommuGroup;
}

/** Parses the number of a group; `undefined` if it is not a number. */
function numberOf(name: string | undefined): number | undefined {
  return name !== undefined && /^\d{1,9}$/.test(name) ? Number(name) : undefined;
}

/** Returns the last part of a link's target; `undefined` if there is no link. */
function target(link: string): string | undefined {
  try {
    return basename(readlinkSync(link));
  } catch {
    return undefined; // the device has no driver or no group
  }
}

/** Returns the names in a folder, sorted; none if it cannot be read, as when the group was just removed. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

/** Returns the contents of a file; `undefined` if it cannot be read, as when its device was just removed. */
function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
