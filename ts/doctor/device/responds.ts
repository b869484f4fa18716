/**
 * Reports devices that do not respond: the config space of a lost device reads as all ones.
 */
import type { PciFunction } from '../../host/model.ts';
import type { Facts } from '../facts.ts';
import type { DoctorFinding } from '../finding.ts';

/**
 * Returns a finding only for a device that does not respond.
 *
 * @param wanted whether the device was named or is bound to VFIO
 * @internal
 */
export function respondsFindings({ host }: Facts, device: PciFunction, wanted: boolean): DoctorFinding[] {
  const { address, responds, powerState } = device;
  if (responds !== false) return [];
  const power = powerState === 'unknown' ? '' : ` (power state ${powerState})`;
  return [
    {
      id: 'responds',
      state: wanted ? 'blocked' : 'warning',
      text:
        `${address} does not respond${power}: it hangs, has no power or fell off the bus. Reset the bridge above it, ` +
        'or switch the machine off and on. Read the end of dmesg for details',
      evidence: `${host.root}/bus/pci/devices/${address}/config reads as all ones`,
    },
  ];
}
