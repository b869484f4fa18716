/**
 * Reports 1:1 mappings that the firmware demands for a group.
 */
import { directRegionsOf } from '../../host/direct-regions.ts';
import type { PciFunction } from '../../host/model.ts';
import type { Facts } from '../facts.ts';
import type { DoctorFinding } from '../finding.ts';

/** Whether the kernel keeps the device from VFIO. @internal */
export function isKeptFromVfio({ host, system }: Facts, device: PciFunction): boolean {
  return directRegionsOf(host, system.kernel, device)?.kept === true;
}

/**
 * Returns a finding only for a group with such mappings.
 *
 * @param wanted whether the device was named or is bound to VFIO
 * @internal
 */
export function directRegionFindings({ host, system }: Facts, device: PciFunction, wanted: boolean): DoctorFinding[] {
  const found = directRegionsOf(host, system.kernel, device);
  if (found === undefined) return [];
  const { ranges, kept, text } = found;
  const evidence = `${host.root}/kernel/iommu_groups/${device.group}/reserved_regions: ${ranges.length} of kind direct`;
  return [{ id: 'direct-regions', state: kept && wanted ? 'blocked' : 'warning', text, evidence }];
}
