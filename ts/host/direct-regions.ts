/**
 * Ranges for which the firmware demands a 1:1 mapping (RMRR, IVMD, RMR): `direct` in the reserved regions of a group.
 * VFIO can't promise one, so most kernels don't give it the group:
 *
 * - Linux 6.6 and later refuse it with any IOMMU (drivers/iommu/iommu.c: `__iommu_device_set_domain`, commit
 *   a48ce36e2786);
 * - before that Intel's driver alone does (drivers/iommu/intel/iommu.c: `device_is_rmrr_locked`). Other drivers let
 * VFIO have the group, and the mapping is not there meanwhile.
 *
 * All of them let VFIO have what is `direct-relaxable` (USB and graphics, `device_rmrr_is_relaxable`).
 */
import { hex } from '../address-range.ts';
import type { Iommu, ReservedRange } from './iommu.ts';
import type { Host, PciFunction, Unknown } from './model.ts';
import { type KernelVersion, isAtLeast } from './system/kernel.ts';

const ALL_SINCE = [6, 6] as const;

/** What the firmware's 1:1 mappings mean to a device. @internal */
export interface DirectRegions {
  /** At least one. */
  readonly ranges: readonly ReservedRange[];
  /** Whether the kernel keeps the device from VFIO, as far as is known which kernel and which IOMMU it is. */
  readonly kept: boolean;
  /** For people: whose ranges, what the kernel makes of them, and what to do if it keeps the device. */
  readonly says: string;
}

/** A device and its IOMMU group. */
type Grouped = Pick<PciFunction, 'address' | 'group'>;
type Ranges = readonly Pick<ReservedRange, 'start' | 'end'>[];

const REMEDY =
  'Update the firmware, turn off there what uses the range (such as a management controller), or take another slot';

/**
 * The 1:1 mappings that the firmware demands for a device or another one of its group; `undefined` for none.
 *
 * @internal
 */
export function directRegionsOf(
  { groups, iommus }: Pick<Host, 'groups' | 'iommus'>,
  kernel: KernelVersion | Unknown,
  device: Pick<PciFunction, 'address' | 'group' | 'iommu'>,
): DirectRegions | undefined {
  const reserved = device.group === undefined ? undefined : groups.get(device.group)?.reserved;
  const ranges = Array.isArray(reserved) ? reserved.filter(({ kind }) => kind === 'direct') : [];
  if (ranges.length === 0) return undefined;
  const demand = firmwareDemand(device, ranges);
  const kind = device.iommu === undefined ? undefined : iommus.get(device.iommu)?.kind;
  const kept = keepsDirectRegions(kind, kernel);
  if (kept === true) return { ranges, kept, says: keptByFirmware(device, ranges) };
  if (kept === false) {
    const says = `${demand}, which is not there while VFIO has the device: Linux 6.6 and later keep it from VFIO`;
    return { ranges, kept, says };
  }
  const who =
    kind === undefined ? 'Linux 6.6 and later, and before that with an IOMMU of Intel,' : 'Linux 6.6 and later';
  return { ranges, kept: true, says: `${demand}: ${who} keep it from VFIO. ${REMEDY}` };
}

/**
 * Whether the kernel keeps devices with such mappings from VFIO.
 *
 * @param kind of the IOMMU; `undefined` if it is not known which one is before the device
 * @internal
 */
export function keepsDirectRegions(
  kind: Iommu['kind'] | undefined,
  kernel: KernelVersion | Unknown,
): boolean | Unknown {
  if (kind === 'intel') return true;
  if (kernel === 'unknown') return 'unknown';
  return isAtLeast(kernel, ALL_SINCE) || (kind === undefined ? 'unknown' : false);
}

/** Why the kernel does not give VFIO a device with such mappings, and what to do. @internal */
export function keptByFirmware(device: Grouped, ranges: Ranges): string {
  return `${firmwareDemand(device, ranges)}, so the kernel does not give it to VFIO. ${REMEDY}`;
}

function firmwareDemand({ address, group }: Grouped, ranges: Ranges): string {
  const list = ranges.map(({ start, end }) => `${hex(start)}..${hex(end)}`).join(', ');
  return `${address} is in IOMMU group ${group}, for which the firmware demands a 1:1 mapping of ${list} (RMRR, IVMD)`;
}
