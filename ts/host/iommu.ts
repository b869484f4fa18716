/**
 * Reads IOMMUs and their groups: /sys/class/iommu and /sys/kernel/iommu_groups.
 */
import { isMediatedName, isPciAddress } from './address.ts';
import type { PciFunction, UnknownFact } from './model.ts';
import type { SysFiles } from './sys-files.ts';

/** The folder of all groups. @internal */
export const GROUPS = 'kernel/iommu_groups';
const IOMMUS = 'class/iommu';
/** Name of a group of VFIO for a device without an IOMMU (Linux, `vfio_noiommu_group_alloc`). @internal */
export const NO_IOMMU_NAME = 'vfio-noiommu';

/** Devices that an IOMMU cannot isolate from each other. A group is assigned as a whole. */
export interface IommuGroup {
  /** The kernel's number of the group, as in `/dev/vfio/NUMBER`. */
  readonly number: number;
  /** Addresses of its PCI functions, sorted. */
  readonly members: readonly string[];
  /** Members that are not PCI functions, sorted. If one has a host driver, the group cannot be assigned. */
  readonly others: readonly NonPciMember[];
  /** Domain for the host's drivers: `DMA`, `DMA-FQ`, `identity`, `blocked`. A VFIO container replaces it. */
  readonly type: string | UnknownFact;
  /** IOVAs that cannot be mapped; unknown if the kernel does not list them. */
  readonly reserved: readonly ReservedIovaRange[] | UnknownFact;
}

/** A member of an IOMMU group that is not a PCI function. */
export interface NonPciMember {
  /** The kernel's name of the device: `ACPI0004:00`, `fe300000.usb`. */
  readonly name: string;
  /** The driver; `undefined` if the device has none. */
  readonly driver: string | undefined;
}

/** A range of IOVAs that the kernel reserves. */
export interface ReservedIovaRange {
  /** The first address. */
  readonly start: bigint;
  /** One past the last address. */
  readonly end: bigint;
  /** The kernel's kind: `msi`, `direct`, `direct-relaxable` or `reserved`. VFIO can map `direct-relaxable`. */
  readonly kind: string;
}

/** One IOMMU. */
export interface HostIommu {
  /** Name below /sys/class/iommu: `dmar0`, `ivhd0`. */
  readonly name: string;
  /** Vendor of the specification that the IOMMU follows. */
  readonly kind: 'intel' | 'amd' | UnknownFact;
  /** Devices behind the IOMMU: addresses of PCI functions, and the kernel's names of others. */
  readonly devices: readonly string[];
  /** Width of the IOVAs in bits; unknown if /sys does not report it (AMD and others). */
  readonly addressBits: number | UnknownFact;
  /** Whether the IOMMU answers translation requests of devices (ATS, "device TLB"); unknown as above. */
  readonly deviceTlb: boolean | UnknownFact;
}

/** @internal */
export const TURN_ON_IN_FIRMWARE = 'turn on the IOMMU in the firmware (VT-d, AMD-Vi)';
/** @internal */
export const TURN_ON_THE_IOMMU = `${TURN_ON_IN_FIRMWARE} and boot Linux with intel_iommu=on on an Intel machine`;

/**
 * Explains that a device without a group cannot be assigned, with a remedy.
 *
 * @param iommuIsOn whether other devices are in groups of an IOMMU
 * @internal
 */
export function noGroupText(address: string, iommuIsOn: boolean): string {
  const state = `${address} is in no IOMMU group`;
  return iommuIsOn
    ? `${state}, though the IOMMU is on: the firmware or the kernel's command line (igfx_off) excludes the device`
    : `${state}, so no IOMMU protects memory from it: ${TURN_ON_THE_IOMMU}`;
}

/** Whether VFIO made the group without an IOMMU. */
function isWithoutIommu(files: SysFiles, group: number): boolean {
  return files.word(`${GROUPS}/${group}/name`) === NO_IOMMU_NAME;
}

/** Reads the link of a function to its group. @internal */
export function readGroupNumbers(files: SysFiles, folder: string): Pick<PciFunction, 'group' | 'noIommuGroup'> {
  const number = groupNumber(files, folder);
  const withoutIommu = number !== undefined && isWithoutIommu(files, number);
  return withoutIommu ? { group: undefined, noIommuGroup: number } : { group: number, noIommuGroup: undefined };
}

function groupNumber(files: SysFiles, folder: string): number | undefined {
  const path = `${folder}/iommu_group`;
  const name = files.linkName(path);
  if (name === undefined) return undefined;
  if (/^\d{1,9}$/.test(name)) return Number(name);
  files.report(path, `links to ${JSON.stringify(name.slice(0, 40))}, which is not a group number`);
  return undefined;
}

/** Reads all groups that an IOMMU isolates. @internal */
export function readGroups(files: SysFiles): Map<number, IommuGroup> {
  const groups = new Map<number, IommuGroup>();
  for (const name of files.names(GROUPS)) {
    const path = `${GROUPS}/${name}`;
    if (!/^\d{1,9}$/.test(name)) {
      files.report(path, 'is not a group number');
      continue;
    }
    if (isWithoutIommu(files, Number(name))) continue;
    const devices = files.names(`${path}/devices`);
    // Linux 5.15 makes a group without an IOMMU for a mediated device (`mdev_attach_iommu`).
    if (devices.length > 0 && devices.every(isMediatedName)) continue;
    groups.set(Number(name), {
      number: Number(name),
      members: devices.filter(isPciAddress),
      others: devices
        .filter((device) => !isPciAddress(device))
        .map((device) => ({ name: device, driver: files.linkName(`${path}/devices/${device}/driver`) })),
      type: files.word(`${path}/type`) ?? 'unknown',
      reserved: readReserved(files, Number(name)),
    });
  }
  return groups;
}

/**
 * Reads the IOVA ranges that a group reserves. Each line has the first address, the last address and the kind:
 * `0x00000000fee00000 0x00000000feefffff msi` (Linux, drivers/iommu/iommu.c).
 *
 * @internal
 */
export function readReserved(files: SysFiles, group: number): readonly ReservedIovaRange[] | UnknownFact {
  const path = `${GROUPS}/${group}/reserved_regions`;
  const text = files.text(path);
  if (text === undefined) return 'unknown';
  return text.split('\n').flatMap((line) => {
    if (line.trim() === '') return [];
    const parts = /^0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16}) ([a-z-]+)$/i.exec(line.trim());
    const [start, last] = [BigInt(`0x${parts?.[1] ?? '1'}`), BigInt(`0x${parts?.[2] ?? '0'}`)];
    if (parts !== null && last >= start) return [{ start, end: last + 1n, kind: parts[3] ?? '' }];
    files.report(path, `has ${JSON.stringify(line.slice(0, 60))}, which is not a range`);
    return [];
  });
}

/** Reads all IOMMUs. @internal */
export function readIommus(files: SysFiles): Map<string, HostIommu> {
  const iommus = new Map<string, HostIommu>();
  for (const name of files.names(IOMMUS)) {
    const path = `${IOMMUS}/${name}`;
    const devices = files.names(`${path}/devices`);
    iommus.set(name, { name, devices, ...readIommuKind(files, path) });
  }
  return iommus;
}

function readIommuKind(files: SysFiles, path: string): Pick<HostIommu, 'kind' | 'addressBits' | 'deviceTlb'> {
  if (files.has(`${path}/intel-iommu`)) {
    const capabilities = readRegister(files, `${path}/intel-iommu/cap`);
    const extended = readRegister(files, `${path}/intel-iommu/ecap`);
    return {
      kind: 'intel',
      addressBits: capabilities === undefined ? 'unknown' : intelAddressBits(capabilities),
      deviceTlb: extended === undefined ? 'unknown' : (extended & DEVICE_TLB) !== 0n,
    };
  }
  const kind = files.has(`${path}/amd-iommu`) ? 'amd' : 'unknown';
  return { kind, addressBits: 'unknown', deviceTlb: 'unknown' };
}

/** ECAP_REG, bit 2 (Intel VT-d specification, 11.4.3). */
const DEVICE_TLB = 4n;

function readRegister(files: SysFiles, path: string): bigint | undefined {
  const word = files.word(path);
  if (word === undefined) return undefined;
  if (/^[0-9a-f]{1,16}$/i.test(word)) return BigInt(`0x${word}`);
  files.report(path, `holds ${JSON.stringify(word.slice(0, 40))}, which is not a register value`);
  return undefined;
}

/**
 * Decodes the address width from CAP_REG (Intel VT-d specification, 11.4.2).
 *
 * SAGAW (bits 8 to 12) has the widths of page tables; the kernel uses the widest. MGAW (bits 16 to 21) plus 1 is the
 * widest address.
 */
function intelAddressBits(capabilities: bigint): number | UnknownFact {
  const tables = Number((capabilities >> 8n) & 0x1fn);
  const widths = [39, 48, 57].filter((_, index) => (tables & (2 << index)) !== 0);
  const most = Number((capabilities >> 16n) & 0x3fn) + 1;
  return widths.length === 0 ? 'unknown' : Math.min(most, Math.max(...widths));
}
