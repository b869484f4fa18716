/**
 * Ranges for which the firmware demands a 1:1 mapping (RMRR, IVMD, RMR). They are `direct` in the reserved regions of a
 * group.
 *
 * VFIO does not keep such mappings, so most kernels reject an assignment of the group:
 *
 * - Linux 6.6 and later reject it with any IOMMU (drivers/iommu/iommu.c: `__iommu_device_set_domain`, commit
 *   a48ce36e2786).
 * - Before 6.6 only Intel's driver rejects it (drivers/iommu/intel/iommu.c: `device_is_rmrr_locked`). With other
 *   drivers VFIO gets the group, and the mapping is missing while VFIO has it.
 *
 * All kernels give VFIO groups with `direct-relaxable` ranges (USB and graphics, `device_rmrr_is_relaxable`).
 */
import { hex } from '../address-range.ts';
import type { HostIommu, ReservedIovaRange } from './iommu.ts';
import type { HostMachine, PciFunction, UnknownFact } from './model.ts';
import { type KernelVersion, isAtLeast } from './system/kernel.ts';

const ALL_SINCE = [6, 6] as const;

/** The firmware's 1:1 mappings of a device, and their effect on assignment. @internal */
export interface DirectRegions {
  /** At least one. */
  readonly ranges: readonly ReservedIovaRange[];
  /** Whether the kernel keeps the device from VFIO; `true` while the kernel or the IOMMU is unknown. */
  readonly kept: boolean;
  /** Text for people: the ranges, the reaction of the kernel, and a remedy if it keeps the device. */
  readonly text: string;
}

/** A device and its IOMMU group. */
type Grouped = Pick<PciFunction, 'address' | 'group'>;
type Ranges = readonly Pick<ReservedIovaRange, 'start' | 'end'>[];

const REMEDY =
  'Update the firmware, turn off the user of the range in it (such as a management controller), or use another slot';

/**
 * Returns the 1:1 mappings that the firmware demands for the group of a device; `undefined` for none.
 *
 * @internal
 */
export function directRegionsOf(
  { groups, iommus }: Pick<HostMachine, 'groups' | 'iommus'>,
  kernel: KernelVersion | UnknownFact,
  device: Pick<PciFunction, 'address' | 'group' | 'iommu'>,
): DirectRegions | undefined {
  const reserved = device.group === undefined ? undefined : groups.get(device.group)?.reserved;
  const ranges = Array.isArray(reserved) ? reserved.filter(({ kind }) => kind === 'direct') : [];
  if (ranges.length === 0) return undefined;
  const demand = firmwareDemand(device, ranges);
  const kind = device.iommu === undefined ? undefined : iommus.get(device.iommu)?.kind;
  const kept = keepsDirectRegions(kind, kernel);
  if (kept === true) return { ranges, kept, text: keptByFirmware(device, ranges) };
  if (kept === false) {
    const text = `${demand}, which is missing while VFIO has the device: Linux 6.6 and later keep it from VFIO`;
    return { ranges, kept, text };
  }
  const who =
    kind === undefined ? 'Linux 6.6 and later, and before that with an IOMMU of Intel,' : 'Linux 6.6 and later';
  return { ranges, kept: true, text: `${demand}: ${who} keep it from VFIO. ${REMEDY}` };
}

/**
 * Whether the kernel keeps devices with such mappings from VFIO.
 *
 * @param kind kind of the IOMMU; `undefined` if the IOMMU of the device is unknown
 * @internal
 */
export function keepsDirectRegions(
  kind: HostIommu['kind'] | undefined,
  kernel: KernelVersion | UnknownFact,
): boolean | UnknownFact {
  if (kind === 'intel') return true;
  if (kernel === 'unknown') return 'unknown';
  return isAtLeast(kernel, ALL_SINCE) || (kind === undefined ? 'unknown' : false);
}

/** Explains that the kernel keeps a device with such mappings from VFIO, with a remedy. @internal */
export function keptByFirmware(device: Grouped, ranges: Ranges): string {
  return `${firmwareDemand(device, ranges)}, so the kernel does not give it to VFIO. ${REMEDY}`;
}

function firmwareDemand({ address, group }: Grouped, ranges: Ranges): string {
  const list = ranges.map(({ start, end }) => `${hex(start)}..${hex(end)}`).join(', ');
  return `${address} is in IOMMU group ${group}, for which the firmware demands a 1:1 mapping of ${list} (RMRR, IVMD)`;
}
