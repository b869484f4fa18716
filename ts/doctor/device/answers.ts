/**
 * Whether a device answers at all: one that fell off the bus, or does not wake, reads as all ones.
 */
import type { PciFunction } from '../../host/model.ts';
import type { Facts } from '../facts.ts';
import type { Finding } from '../finding.ts';

/**
 * No finding for a device that answers, or if that is unknown.
 *
 * @param wanted whether the device was named, or is bound to VFIO
 * @internal
 */
export function answersFindings({ host }: Facts, device: PciFunction, wanted: boolean): Finding[] {
  const { address, answers, powerState } = device;
  if (answers !== false) return [];
  const power = powerState === 'unknown' ? '' : ` (power state ${powerState})`;
  return [
    {
      id: 'answers',
      state: wanted ? 'blocked' : 'warning',
      says: `${address} does not answer${power}: it hangs, has no power or fell off the bus. Reset what is above it, or switch the machine off and on; the end of dmesg may say more`,
      evidence: `${host.root}/bus/pci/devices/${address}/config reads as all ones`,
    },
  ];
}
