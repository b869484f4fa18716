/**
 * Reads the PCI devices and IOMMUs of a host from /sys.
 */
import { release } from 'node:os';
import { resolve } from 'node:path';
import { readOptions } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import { byAddress, isPciAddress, noSuchDevice, pciAddress } from './address.ts';
import { readCpu, readVirtual } from './cpu.ts';
import { evaluateHost } from './host-argument.ts';
import { type IommuGroup, readGroups, readIommus } from './iommu.ts';
import type { HostMachine, PciFunction } from './model.ts';
import { type ReadFunction, readFunction } from './pci-function.ts';
import { DEVICES, SysFiles } from './sys-files.ts';
import { versionOf } from './system/kernel.ts';
import { findTreePlaces, rootBuses } from './tree.ts';

/**
 * Reads the PCI devices and IOMMUs of a host.
 *
 * Only root can read config space beyond its first 64 bytes; ACS, ATS and port types are `unknown` for other users.
 * Invalid files become {@link HostMachine.findings}; they never cause an error.
 *
 * @param root /sys, or a folder with a recorded one. The function reads `bus/pci/devices`, `kernel/iommu_groups`,
 *   `class/iommu` and `devices/system/cpu/modalias`, and does not follow links
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if `root` is not a folder with `bus/pci/devices`
 */
export function readHost(root: string = '/sys'): HostMachine {
  if (!new SysFiles(root).isFolder(DEVICES)) {
    throw new PeerDmaError(
      'ERR_INVALID_ARGUMENT',
      `${valueText(root)} has no ${DEVICES}: it is not the /sys of a machine with PCI. Name /sys or a copy of it`,
    );
  }
  return readHostOrEmpty(root);
}

/** Like {@link readHost}, but a host without PCI has no functions. @internal */
export function readHostOrEmpty(root: string): HostMachine {
  const files = new SysFiles(root);
  const read = new Map<string, ReadFunction>();
  for (const name of files.names(DEVICES).sort(byAddress)) {
    if (isPciAddress(name)) read.set(name, readFunction(files, name));
    else files.report(`${DEVICES}/${name}`, 'is not a PCI address');
  }
  const placed = findTreePlaces(files, read);
  const listed = readGroups(files);
  const groupOf = new Map([...listed].flatMap(([number, { members }]) => members.map((member) => [member, number])));
  const functions = new Map<string, PciFunction>();
  for (const [address, { place: _, virtualMemoryDecode: __, ...facts }] of read) {
    const physical = facts.physicalFunction === undefined ? undefined : read.get(facts.physicalFunction);
    functions.set(address, {
      ...facts,
      // A recorded tree may lack the link.
      group: facts.group ?? groupOf.get(address),
      parent: placed.get(address)?.parent,
      rootBus: placed.get(address)?.rootBus ?? '',
      // Memory Space Enable of a virtual function always reads as 0 (SR-IOV, 3.4.1.3).
      ...(facts.physicalFunction === undefined ? {} : { memoryDecode: physical?.virtualMemoryDecode ?? 'unknown' }),
    });
  }
  const groups = completeGroups(files, listed, functions);
  const iommus = readIommus(files);
  const [cpu, virtual] = [readCpu(files), readVirtual(files)];
  return {
    root,
    functions,
    rootBuses: rootBuses(read, placed),
    groups,
    iommus,
    cpu,
    virtual,
    kernel: resolve(root) === '/sys' ? versionOf(release()) : 'unknown',
    findings: files.findings,
  };
}

/**
 * Returns the function with an address.
 *
 * @param text `0000:01:00.0`, or `01:00.0` in domain 0
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the text is not an address, `ERR_DEVICE_NOT_FOUND` if the host has
 *   no such function
 */
export function functionAt(host: HostMachine, text: string): PciFunction {
  const address = pciAddress(text);
  const found = evaluateHost(host, ({ functions }) => functions.get(address));
  if (found !== undefined) return found;
  throw noSuchDevice(address);
}

/**
 * Returns the bridges above a function, the nearest first.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if an argument is not a host or a function, or a bridge is above itself
 */
export function bridgesAbove(host: HostMachine, device: PciFunction): PciFunction[] {
  const { parent } = readOptions(device, ['parent'], 'a PCI function');
  return evaluateHost(host, ({ functions }) => {
    const above = new Set<PciFunction>();
    for (let next = parent; next !== undefined;) {
      const bridge = functions.get(next);
      if (bridge === undefined) break;
      if (above.has(bridge)) throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the bridge ${next} is above itself`);
      above.add(bridge);
      next = bridge.parent;
    }
    return [...above];
  });
}

/**
 * Returns the functions directly below a bridge, sorted by address.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the argument is not a host
 */
export function childrenOf(host: HostMachine, bridge: string): PciFunction[] {
  return evaluateHost(host, ({ functions }) => [...functions.values()].filter(({ parent }) => parent === bridge));
}

/** Maps bridges to the functions directly below them, sorted by address. @internal */
export function childrenByParent({ functions }: HostMachine): Map<string, PciFunction[]> {
  const children = new Map<string, PciFunction[]>();
  for (const each of functions.values()) {
    if (each.parent === undefined) continue;
    const siblings = children.get(each.parent);
    if (siblings === undefined) children.set(each.parent, [each]);
    else siblings.push(each);
  }
  return children;
}

/** Returns the functions of an IOMMU group, sorted by address. @internal */
export function membersOf(host: HostMachine, group: number): PciFunction[] {
  return (host.groups.get(group)?.members ?? []).flatMap((address) => host.functions.get(address) ?? []);
}

/** Joins the members that groups list with the groups of functions. A recorded tree may have only one of both. */
function completeGroups(
  files: SysFiles,
  groups: Map<number, IommuGroup>,
  functions: ReadonlyMap<string, PciFunction>,
): Map<number, IommuGroup> {
  const members = new Map([...groups].map(([number, group]) => [number, new Set(group.members)]));
  for (const { address, group } of functions.values()) {
    if (group === undefined) continue;
    const known = members.get(group) ?? new Set<string>();
    if (known.has(address)) continue;
    if (known.size > 0 && files.has(`kernel/iommu_groups/${group}/devices`)) {
      files.report(`${DEVICES}/${address}/iommu_group`, `is group ${group}, which does not list the device`);
    }
    members.set(group, known.add(address));
  }
  const completed = [...members].map(([number, addresses]): [number, IommuGroup] => {
    const known = groups.get(number) ?? { number, members: [], others: [], type: 'unknown', reserved: 'unknown' };
    const complete = addresses.size === known.members.length;
    return [number, complete ? known : { ...known, members: [...addresses].sort(byAddress) }];
  });
  return new Map(completed.sort(([a], [b]) => a - b));
}
