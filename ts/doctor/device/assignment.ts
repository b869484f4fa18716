/**
 * Reports whether a device can be assigned: its group, driver, firmware mappings, users and VF token.
 */
import { bridgeRefused, isVfioDriver } from '../../host/drivers.ts';
import type { GroupMember } from '../../host/group-use.ts';
import { NO_IOMMU_NAME } from '../../host/iommu.ts';
import { listed, without } from '../../host/listed.ts';
import type { PciFunction } from '../../host/model.ts';
import { groupNotViable, nameOfBlocker, noIommuGroup, notBound, openAlready } from '../../vfio/opening-errors.ts';
import type { PciDevice } from '../../vfio/sysfs.ts';
import type { Facts } from '../facts.ts';
import type { DoctorFinding } from '../finding.ts';
import type { Lookups } from '../lookups.ts';
import { respondsFindings } from './responds.ts';
import { directRegionFindings, isKeptFromVfio } from './direct-regions.ts';
import { tokenFindings } from './vf-token.ts';

/** Converts a function to the form of the errors of opening. @internal */
export function asPciDevice({ address, driver, group }: PciFunction): PciDevice {
  return { bdf: address, driver, iommuGroup: group };
}

/**
 * Returns the findings about assignment. Only devices that are bound to VFIO are checked for open files.
 *
 * @param asked whether the device was named. Otherwise use by the host is not a problem
 * @internal
 */
export function assignmentFindings(
  facts: Facts,
  lookups: Lookups,
  device: PciFunction,
  asked: boolean,
): DoctorFinding[] {
  const bound = isVfioDriver(device.driver);
  const wanted = asked || bound;
  return [
    ...respondsFindings(facts, device, wanted),
    groupFinding(facts, lookups, device, wanted),
    ...directRegionFindings(facts, device, wanted),
    driverFinding(facts, lookups, device, asked),
    ...viabilityFindings(facts, lookups, device, wanted),
    ...(bound && device.group !== undefined ? [freeFinding(facts, lookups, device, device.group)] : []),
    ...tokenFindings(facts, lookups, device),
  ];
}

function groupFinding({ host }: Facts, { groups }: Lookups, device: PciFunction, wanted: boolean): DoctorFinding {
  const id = 'group';
  const { address, group } = device;
  const path = `${host.root}/bus/pci/devices/${address}/iommu_group`;
  if (group === undefined) {
    const { message: text, code } = noIommuGroup(address, host.groups.size > 0);
    const made = device.noIommuGroup;
    const evidence = made === undefined ? `no ${path}` : `${path}: ${made}, whose name is ${NO_IOMMU_NAME}`;
    return wanted ? { id, state: 'blocked', text, evidence, code } : { id, state: 'warning', text, evidence };
  }
  const { all } = groups.of(group);
  const others = without(all, new Set([device]));
  const list = listed(others, all.length - 1, (other) => `${other.address} (${other.driver ?? 'no driver'})`);
  const text = `IOMMU group ${group}, ${list === '' ? 'alone' : `with ${list}`}`;
  return { id, state: 'ok', text, evidence: `${path}; ${host.root}/kernel/iommu_groups/${group}/devices` };
}

function driverFinding(facts: Facts, lookups: Lookups, device: PciFunction, asked: boolean): DoctorFinding {
  const id = 'driver';
  const { address, driver, bridge } = device;
  const evidence = `${facts.host.root}/bus/pci/devices/${address}/driver: ${driver ?? 'none'}`;
  if (isVfioDriver(driver)) return { id, state: 'ok', text: `bound to ${driver}`, evidence };
  if (bridge !== undefined) {
    return { id, state: asked ? 'blocked' : 'warning', text: bridgeRefused(address), evidence };
  }
  const { code, message } = notBound(asPciDevice(device));
  const needed = asked ? neededText(facts, device) : undefined;
  const text = needed ?? unboundText(facts, lookups, device) ?? message;
  const fix = needed === undefined ? bindCommand(facts, lookups, device) : undefined;
  return asked ? { id, state: 'blocked', text, evidence, fix, code } : { id, state: 'warning', text, evidence, fix };
}

/** Explains that `peerdma bind` rejects the device since the host uses it; `undefined` if it does not. */
function neededText({ usesOf }: Facts, device: PciFunction): string | undefined {
  const uses = (usesOf?.(device) ?? []).filter(({ kind }) => kind !== 'keyboard');
  if (uses.length === 0) return undefined;
  const { address, driver } = device;
  const list = listed(uses, uses.length, ({ text }) => text);
  const remedy = 'End that use first, or assign another device: peerdma bind rejects this one';
  const by = driver === undefined ? '' : ` (driver ${driver})`;
  return `${address} is in use by this machine${by}: it ${list}. ${remedy}`;
}

/** Returns the command that binds a device; `undefined` if no driver makes the device assignable. */
function bindCommand(facts: Facts, lookups: Lookups, device: PciFunction): string | undefined {
  if (device.group === undefined || isKeptFromVfio(facts, device)) return undefined;
  const group = othersInTheWay(lookups, device).pci > 0 ? '--group ' : '';
  return `sudo npx peerdma bind ${group}${device.address}`;
}

/** Explains that binding only the device is not enough; `undefined` if it is. */
function unboundText(facts: Facts, lookups: Lookups, device: PciFunction): string | undefined {
  const { address, driver } = device;
  const command = bindCommand(facts, lookups, device);
  if (command !== undefined && othersInTheWay(lookups, device).pci === 0) return undefined;
  const state = driver === undefined ? 'bound to no driver' : `in use by the driver ${driver}`;
  if (command !== undefined) return `${address} is ${state}: bind all of its group to vfio-pci (${command})`;
  return `${address} is ${state}. Binding it does not help until the findings above are resolved`;
}

interface OthersInTheWay {
  readonly others: Iterable<GroupMember>;
  readonly count: number;
  /** Number of PCI functions, which `bind --group` binds. */
  readonly pci: number;
}

/** Returns other members of the device's group that the host uses. */
function othersInTheWay({ groups }: Lookups, device: PciFunction): OthersInTheWay {
  if (device.group === undefined) return { others: [], count: 0, pci: 0 };
  const { blockers, pciBlockers } = groups.of(device.group);
  const self = blockers.has(device) ? 1 : 0;
  return { others: without(blockers, new Set([device])), count: blockers.size - self, pci: pciBlockers - self };
}

/** Returns group viability; for an unbound device only if it would prevent opening after binding. */
function viabilityFindings(facts: Facts, lookups: Lookups, device: PciFunction, wanted: boolean): DoctorFinding[] {
  const id = 'group-viable';
  const { root } = facts.host;
  const { address, group, driver } = device;
  if (group === undefined) return [];
  const { all } = lookups.groups.of(group);
  const list = listed(all, all.length, (each) => `${each.address}: ${each.driver ?? 'no driver'}`);
  const evidence = `${root}/kernel/iommu_groups/${group}/devices: ${list}`;
  const { others, count, pci } = othersInTheWay(lookups, device);
  if (count === 0) {
    const ok = { id, state: 'ok', text: 'the host uses no member of the group', evidence } as const;
    return isVfioDriver(driver) ? [ok] : [];
  }
  const names = listed(others, count, (other) => nameOfBlocker({ bdf: other.address, driver: other.driver }));
  const { message: text, code } = groupNotViable(address, group, names);
  const fix = isKeptFromVfio(facts, device) || pci === 0 ? undefined : `sudo npx peerdma bind --group ${address}`;
  return wanted
    ? [{ id, state: 'blocked', text, evidence, fix, code }]
    : [{ id, state: 'warning', text, evidence, fix }];
}

function freeFinding(
  { system, seesAllProcesses }: Facts,
  lookups: Lookups,
  { address }: PciFunction,
  group: number,
): DoctorFinding {
  const id = 'free';
  if (system.openFiles === 'unknown') {
    return { id, state: 'unknown', text: 'which processes have it open is unknown here', evidence: 'no /proc' };
  }
  const { files, users } = lookups.openersOfGroup(group);
  const evidence = `/proc/*/fd, ${listed(files, files.length, (file) => file)}`;
  if (users.length > 0) {
    return { id, state: 'blocked', text: openAlready(address, group, users), evidence, code: 'ERR_GROUP_BUSY' };
  }
  if (seesAllProcesses) return { id, state: 'ok', text: 'no visible process has it open', evidence };
  const text = 'no process of this user has it open; only root can read those of other users';
  return { id, state: 'unknown', text, evidence };
}
