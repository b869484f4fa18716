/**
 * Whether the firmware demands 1:1 mappings of a group: the kernel does not give such a group to VFIO.
 */
import { directRegions, firmwareDemand, keptByFirmware } from '../../host/iommu.ts';
import type { Host, PciFunction } from '../../host/model.ts';
import { isAtLeast } from '../../host/system/kernel.ts';
import type { Facts } from '../facts.ts';
import type { Finding } from '../finding.ts';

/** The kernel that keeps all such devices; before it Intel's driver alone did (Linux commit a48ce36e2786). */
const ALL_SINCE = [6, 6] as const;

/** Whether the kernel keeps the device to itself. @internal */
export function isKept({ host, system: { kernel } }: Facts, { group, iommu }: PciFunction): boolean {
  if (directRegions(host, group).length === 0) return false;
  const isAmd = iommu !== undefined && host.iommus.get(iommu)?.kind === 'amd';
  return !isAmd || kernel === 'unknown' || isAtLeast(kernel, ALL_SINCE);
}

/**
 * No finding for a group without such mappings.
 *
 * @param wanted whether the device was named, or is bound to VFIO
 * @internal
 */
export function directRegionFindings(facts: Facts, device: PciFunction, wanted: boolean): Finding[] {
  const { host } = facts;
  const kept = isKept(facts, device);
  const ranges = directRegions(host, device.group);
  const says = kept ? keptByFirmware(device, ranges) : firmwareDemand(device, ranges);
  if (says === undefined) return [];
  const evidence = `${evidenceOf(host, device)}: ${ranges.length} of kind direct`;
  if (kept) return [{ id: 'direct-regions', state: wanted ? 'blocked' : 'warning', says, evidence }];
  return [{ id: 'direct-regions', state: 'warning', says: `${says}: Linux 6.6 and later keep it from VFIO`, evidence }];
}

function evidenceOf({ root }: Host, { group }: PciFunction): string {
  return `${root}/kernel/iommu_groups/${group}/reserved_regions`;
}
