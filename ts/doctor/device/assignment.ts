/**
 * Whether a device is VFIO's, and its group with it, and nobody else's.
 */
import { blockersOf, bridgeRefused, isVfioDriver } from '../../host/drivers.ts';
import { NO_IOMMU_NAME } from '../../host/iommu.ts';
import type { PciFunction } from '../../host/model.ts';
import { membersOf } from '../../host/read-host.ts';
import { filesOf } from '../../host/vfio-files.ts';
import { usersOf } from '../../host/use/open-files.ts';
import { noIommuGroup, notBound, notViable, openAlready } from '../../vfio/advice.ts';
import type { PciDevice } from '../../vfio/sysfs.ts';
import type { Facts } from '../facts.ts';
import type { Finding } from '../finding.ts';
import { answersFindings } from './answers.ts';
import { directRegionFindings, isKept } from './direct-regions.ts';
import { tokenFindings } from './vf-token.ts';

/** As the errors of opening know it. @internal */
export function asPciDevice({ address, driver, group }: PciFunction): PciDevice {
  return { bdf: address, driver, iommuGroup: group };
}

/**
 * Only a device with a driver of VFIO is checked for processes that have it open.
 *
 * @param asked whether somebody wants it: what the host uses is as it should be otherwise
 * @internal
 */
export function assignmentFindings(facts: Facts, device: PciFunction, asked: boolean): Finding[] {
  const bound = isVfioDriver(device.driver);
  const wanted = asked || bound;
  return [
    ...answersFindings(facts, device, wanted),
    groupFinding(facts, device, wanted),
    ...directRegionFindings(facts, device, wanted),
    driverFinding(facts, device, asked),
    ...viabilityFindings(facts, device, wanted),
    ...(bound && device.group !== undefined ? [freeFinding(facts, device, device.group)] : []),
    ...tokenFindings(facts, device),
  ];
}

function groupFinding({ host }: Facts, device: PciFunction, wanted: boolean): Finding {
  const id = 'group';
  const { address, group } = device;
  const path = `${host.root}/bus/pci/devices/${address}/iommu_group`;
  if (group === undefined) {
    const { message, code } = noIommuGroup(address);
    const says = host.groups.size > 0 ? leftOut(address) : message;
    const made = device.noIommuGroup;
    const evidence = made === undefined ? `no ${path}` : `${path}: ${made}, whose name is ${NO_IOMMU_NAME}`;
    return wanted ? { id, state: 'blocked', says, evidence, code } : { id, state: 'warning', says, evidence };
  }
  const others = membersOf(host, group).filter((member) => member.address !== address);
  const list = others.map((other) => `${other.address} (${other.driver ?? 'no driver'})`).join(', ');
  const says = `IOMMU group ${group}, ${list === '' ? 'alone' : `with ${list}`}`;
  return { id, state: 'ok', says, evidence: `${path}; ${host.root}/kernel/iommu_groups/${group}/devices` };
}

function leftOut(address: string): string {
  return `${address} is in no IOMMU group, though the IOMMU is on: the firmware leaves the device out of it, or a word of the kernel's command line (igfx_off) does`;
}

function driverFinding(facts: Facts, device: PciFunction, asked: boolean): Finding {
  const id = 'driver';
  const { address, driver, bridge } = device;
  const evidence = `${facts.host.root}/bus/pci/devices/${address}/driver: ${driver ?? 'none'}`;
  if (isVfioDriver(driver)) return { id, state: 'ok', says: `bound to ${driver}`, evidence };
  if (bridge !== undefined) {
    return { id, state: asked ? 'blocked' : 'warning', says: bridgeRefused(address), evidence };
  }
  const { code, message } = notBound(asPciDevice(device));
  const says = unboundText(facts, device) ?? message;
  const fix = bindCommand(facts, device);
  return asked ? { id, state: 'blocked', says, evidence, fix, code } : { id, state: 'warning', says, evidence, fix };
}

/** The command that binds a device; `undefined` if the device can't be assigned whatever its driver is. */
function bindCommand(facts: Facts, device: PciFunction): string | undefined {
  if (device.group === undefined || isKept(facts, device)) return undefined;
  const group = othersInTheWay(facts, device).length > 0 ? '--group ' : '';
  return `sudo npx peerdma bind ${group}${device.address}`;
}

/** The message when binding the device alone is not enough; `undefined` when it is. */
function unboundText(facts: Facts, device: PciFunction): string | undefined {
  const { address, driver } = device;
  const command = bindCommand(facts, device);
  if (command !== undefined && othersInTheWay(facts, device).length === 0) return undefined;
  const state = driver === undefined ? 'bound to no driver' : `in use by the driver ${driver}`;
  if (command !== undefined) return `${address} is ${state}: bind its whole group to vfio-pci (${command})`;
  return `${address} is ${state}. Binding it does not help until the findings above are resolved`;
}

/** Members of its group, besides itself, that the host uses. */
function othersInTheWay({ host }: Facts, { address, group }: PciFunction): PciFunction[] {
  return group === undefined ? [] : blockersOf(membersOf(host, group)).filter((each) => each.address !== address);
}

/** For a device that is not bound, only a reason that would keep it from being opened once it is bound. */
function viabilityFindings(facts: Facts, device: PciFunction, wanted: boolean): Finding[] {
  const id = 'group-viable';
  const { root } = facts.host;
  const { address, group, driver } = device;
  if (group === undefined) return [];
  const members = membersOf(facts.host, group);
  const list = members.map((each) => `${each.address}: ${each.driver ?? 'no driver'}`).join(', ');
  const evidence = `${root}/kernel/iommu_groups/${group}/devices: ${list}`;
  const blockers = othersInTheWay(facts, device);
  if (blockers.length === 0) {
    const ok = { id, state: 'ok', says: 'the host uses nothing of the group', evidence } as const;
    return isVfioDriver(driver) ? [ok] : [];
  }
  const { message: says, code } = notViable(address, group, blockers.map(asPciDevice));
  const fix = isKept(facts, device) ? undefined : `sudo npx peerdma bind --group ${address}`;
  return wanted
    ? [{ id, state: 'blocked', says, evidence, fix, code }]
    : [{ id, state: 'warning', says, evidence, fix }];
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
