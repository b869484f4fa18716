/**
 * Reports devices that require a VF token to open.
 */
import { isVfioDriver } from '../../host/drivers.ts';
import type { PciFunction } from '../../host/model.ts';
import { PASS_THE_TOKEN, tokenOfVirtual } from '../../host/vf-token.ts';
import type { Facts } from '../facts.ts';
import type { DoctorFinding } from '../finding.ts';
import type { Lookups } from '../lookups.ts';

/** Returns a finding only for a device that requires a token. @internal */
export function tokenFindings({ host }: Facts, lookups: Lookups, device: PciFunction): DoctorFinding[] {
  const text = tokenOfVirtual(host, device);
  if (text === undefined) return ofPhysical(lookups, device);
  const { driver } = host.functions.get(device.physicalFunction ?? '') ?? {};
  const evidence = `${host.root}/bus/pci/devices/${device.address}/physfn/driver: ${driver}`;
  return [{ id: 'vf-token', state: 'warning', text, evidence }];
}

/** A physical function requires the token while one of its virtual functions is open. */
function ofPhysical(lookups: Lookups, { address, driver }: PciFunction): DoctorFinding[] {
  if (!isVfioDriver(driver)) return [];
  for (const each of lookups.virtualFunctionsOf(address)) {
    const { files, users } = lookups.openersOf([each]);
    if (users.length === 0) continue;
    const open = `${each.address}, a virtual function of ${address}, is open in ${users.join(' and ')}`;
    return [
      {
        id: 'vf-token',
        state: 'warning',
        text: `${open}: ${address} opens only with the VF token of that user. ${PASS_THE_TOKEN}`,
        evidence: `/proc/*/fd, ${files.join(', ')}`,
      },
    ];
  }
  return [];
}
