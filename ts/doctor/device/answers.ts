/**
 * Reports devices that do not answer: config space of a lost or sleeping device reads as all ones.
 */
import type { PciFunction } from '../../host/model.ts';
import type { Facts } from '../facts.ts';
import type { DoctorFinding } from '../finding.ts';

/**
 * Returns a finding only for a device that does not answer.
 *
 * @param wanted whether the device was named or is bound to VFIO
 * @internal
 */
export function answersFindings({ host }: Facts, device: PciFunction, wanted: boolean): DoctorFinding[] {
  const { address, answers, powerState } = device;
  if (answers !== false) return [];
  const power = powerState === 'unknown' ? '' : ` (power state ${powerState})`;
  return [
    {
      id: 'answers',
      state: wanted ? 'blocked' : 'warning',
      says: `${address} does not answer${power}: it hangs, has no power or fell off the bus. Reset the bridge above it, or switch the machine off and on. Read the end of dmesg for details`,
      evidence: `${host.root}/bus/pci/devices/${address}/config reads as all ones`,
    },
  ];
}
