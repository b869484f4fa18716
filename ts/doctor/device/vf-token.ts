/**
 * Whether a device opens only with a VF token: a secret that the users of a physical function and of its virtual
 * functions share (Linux, drivers/vfio/pci/vfio_pci_core.c: `vfio_pci_validate_vf_token`).
 */
import { isVfioDriver } from '../../host/drivers.ts';
import type { Host, PciFunction } from '../../host/model.ts';
import { usersOf } from '../../host/use/open-files.ts';
import { filesOf } from '../../host/vfio-files.ts';
import type { Facts } from '../facts.ts';
import type { Finding } from '../finding.ts';

const HOW = 'open(address, { vfToken }) takes it';

/** No finding for a device that opens without a token. @internal */
export function tokenFindings(facts: Facts, device: PciFunction): Finding[] {
  const finding = ofVirtual(facts.host, device) ?? ofPhysical(facts, device);
  return finding === undefined ? [] : [finding];
}

function ofVirtual({ functions, root }: Host, { address, physicalFunction }: PciFunction): Finding | undefined {
  const physical = physicalFunction === undefined ? undefined : functions.get(physicalFunction);
  if (physical === undefined || !isVfioDriver(physical.driver)) return undefined;
  return {
    id: 'vf-token',
    state: 'warning',
    says: `${address} is a virtual function of ${physical.address}, which is bound to ${physical.driver}: it opens only with the VF token that the user of ${physical.address} has set. ${HOW}`,
    evidence: `${root}/bus/pci/devices/${address}/physfn/driver: ${physical.driver}`,
  };
}

function ofPhysical({ host, system }: Facts, { address, driver }: PciFunction): Finding | undefined {
  if (!isVfioDriver(driver) || system.openFiles === 'unknown') return undefined;
  for (const each of host.functions.values()) {
    if (each.physicalFunction !== address) continue;
    const paths = Object.values(filesOf(each)).filter((path) => path !== undefined);
    const users = usersOf(system.openFiles, paths);
    if (users.length === 0) continue;
    return {
      id: 'vf-token',
      state: 'warning',
      says: `${each.address}, a virtual function of ${address}, is open in ${users.join(' and ')}: ${address} opens only with the VF token that is set. ${HOW}`,
      evidence: `/proc/*/fd, ${paths.join(', ')}`,
    };
  }
  return undefined;
}
