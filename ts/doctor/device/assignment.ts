/**
 * Whether a device is VFIO's, and its group with it, and nobody else's.
 */
import { blockersOf, isVfioDriver } from '../../host/drivers.ts';
import { NO_IOMMU_NAME } from '../../host/iommu.ts';
import type { PciFunction } from '../../host/model.ts';
import { membersOf } from '../../host/read-host.ts';
import { filesOf } from '../../host/vfio-files.ts';
import { usersOf } from '../../host/use/open-files.ts';
import { noIommuGroup, notBound, notViable, openAlready } from '../../vfio/advice.ts';
import type { PciDevice } from '../../vfio/sysfs.ts';
import type { Facts } from '../facts.ts';
import type { Finding } from '../finding.ts';

/** As the errors of opening know it. @internal */
export function asPciDevice({ address, driver, group }: PciFunction): PciDevice {
  return { bdf: address, driver, iommuGroup: group };
}

/**
 * What follows from its driver is asked only of a device that has one of VFIO's.
 *
 * @param asked whether somebody wants it: what the host uses is as it should be otherwise
 * @internal
 */
export function assignmentFindings(facts: Facts, device: PciFunction, asked: boolean): Finding[] {
  const bound = isVfioDriver(device.driver);
  return [
    groupFinding(facts, device, asked || bound),
    driverFinding(facts, device, asked),
    ...(bound && device.group !== undefined ? [viabilityFinding(facts, device, device.group)] : []),
    ...(bound && device.group !== undefined ? [freeFinding(facts, device, device.group)] : []),
  ];
}

function groupFinding({ host }: Facts, device: PciFunction, wanted: boolean): Finding {
  const id = 'group';
  const { address, group } = device;
  const path = `${host.root}/bus/pci/devices/${address}/iommu_group`;
  if (group === undefined) {
    const { message, code } = noIommuGroup(address);
    const made = device.noIommuGroup;
    const evidence = made === undefined ? `no ${path}` : `${path}: ${made}, whose name is ${NO_IOMMU_NAME}`;
    return wanted
      ? { id, state: 'blocked', says: message, evidence, code }
      : { id, state: 'warning', says: message, evidence };
  }
  const others = membersOf(host, group).filter((member) => member.address !== address);
  const list = others.map((other) => `${other.address} (${other.driver ?? 'no driver'})`).join(', ');
  const says = `IOMMU group ${group}, ${list === '' ? 'alone' : `with ${list}`}`;
  return { id, state: 'ok', says, evidence: `${path}; ${host.root}/kernel/iommu_groups/${group}/devices` };
}

function driverFinding({ host }: Facts, device: PciFunction, asked: boolean): Finding {
  const id = 'driver';
  const { address, driver } = device;
  const evidence = `${host.root}/bus/pci/devices/${address}/driver: ${driver ?? 'none'}`;
  if (isVfioDriver(driver)) return { id, state: 'ok', says: `bound to ${driver}`, evidence };
  const { message, code } = notBound(asPciDevice(device));
  const fix = `sudo npx peerdma bind ${address}`;
  return asked
    ? { id, state: 'blocked', says: message, evidence, fix, code }
    : { id, state: 'warning', says: message, evidence, fix };
}

function viabilityFinding({ host }: Facts, { address }: PciFunction, group: number): Finding {
  const id = 'group-viable';
  const members = membersOf(host, group);
  const list = members.map((each) => `${each.address}: ${each.driver ?? 'no driver'}`).join(', ');
  const evidence = `${host.root}/kernel/iommu_groups/${group}/devices: ${list}`;
  if (blockersOf(members).length === 0)
    return { id, state: 'ok', says: 'the host uses nothing of the group', evidence };
  const { message, code } = notViable(address, group, members.map(asPciDevice));
  return { id, state: 'blocked', says: message, evidence, fix: `sudo npx peerdma bind --group ${address}`, code };
}

function freeFinding({ host, system, seesAllProcesses }: Facts, { address }: PciFunction, group: number): Finding {
  const { openFiles } = system;
  const id = 'free';
  if (openFiles === 'unknown') {
    return { id, state: 'unknown', says: 'who has it open does not show here', evidence: 'no /proc' };
  }
  // Who has another device of the group has the group.
  const paths = membersOf(host, group).flatMap((member) => Object.values(filesOf(member)));
  const files = [...new Set(paths.filter((path) => path !== undefined))];
  const users = usersOf(openFiles, files);
  const evidence = `/proc/*/fd, ${files.join(', ')}`;
  if (users.length > 0) {
    return { id, state: 'blocked', says: openAlready(address, group, users), evidence, code: 'ERR_GROUP_BUSY' };
  }
  if (seesAllProcesses) return { id, state: 'ok', says: 'no process that is seen from here has it open', evidence };
  const says = 'no process of this user has it open; those of others are for root to see';
  return { id, state: 'unknown', says, evidence };
}
