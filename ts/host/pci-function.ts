/**
 * One folder below /sys/bus/pci/devices.
 */
import { byAddress, isPciAddress } from './address.ts';
import { type ConfigFacts, readConfig } from './config-facts.ts';
import { isWithoutIommu } from './iommu.ts';
import { readLink } from './link.ts';
import type { PciFunction, PciIds, Unknown, VirtualFunctions } from './model.ts';
import { readResources } from './resources.ts';
import type { SysFiles } from './sys-files.ts';

/** Where the folders are. @internal */
export const DEVICES = 'bus/pci/devices';
/** Classes of PCI-to-PCI bridges, CardBus bridges and semi-transparent bridges, without the programming interface. */
const BRIDGE_CLASSES: ReadonlySet<number> = new Set([0x0604, 0x0607, 0x0609]);

/** What is read of one function; where it is in the tree is not told by its folder alone. @internal */
export interface ReadFunction extends Omit<PciFunction, 'parent' | 'rootBus'> {
  readonly place: Place | undefined;
  readonly virtualMemoryDecode: boolean | Unknown;
}

/** Where a function is, by the folder that its link leads to. @internal */
export interface Place {
  readonly parent: string | undefined;
  readonly rootBus: string;
}

/** @internal */
export function readFunction(files: SysFiles, address: string): ReadFunction {
  const folder = `${DEVICES}/${address}`;
  const config = readConfig(files, folder, address);
  const classCode = files.number(`${folder}/class`, 0xffffff);
  const bridge = bridgeOf(config, classCode);
  return {
    address,
    ids: readIds(files, folder),
    classCode,
    driver: files.linkName(`${folder}/driver`),
    driverOverride: overrideOf(files.word(`${folder}/driver_override`)),
    ...groupsOf(files, folder),
    iommu: files.linkName(`${folder}/iommu`),
    ...readResources(files, folder, bridge !== undefined),
    ...config,
    bridge,
    link: readLink(files, folder),
    resetMethods: resetMethods(files, folder),
    powerState: powerState(files.word(`${folder}/power_state`)),
    physicalFunction: addressOfLink(files, `${folder}/physfn`),
    virtualFunctions: virtualFunctions(files, folder),
    numaNode: numaNode(files, folder),
    vfioFile: files.names(`${folder}/vfio-dev`).find((name) => /^vfio\d+$/.test(name)),
    place: treePlaceOf(files, folder, address),
  };
}

/**
 * The type of the header decides, as it does for VFIO (Linux, `vfio_pci_core_register_device`); the class stands in
 * for it where the header can't be read.
 */
function bridgeOf({ bridge }: ConfigFacts, classCode: number | Unknown): ConfigFacts['bridge'] {
  if (bridge !== 'unknown') return bridge;
  return classCode !== 'unknown' && BRIDGE_CLASSES.has(classCode >> 8) ? 'unknown' : undefined;
}

function readIds(files: SysFiles, folder: string): PciIds {
  const id = (name: string, most = 0xffff): number | Unknown => files.number(`${folder}/${name}`, most);
  return {
    vendor: id('vendor'),
    device: id('device'),
    subsystemVendor: id('subsystem_vendor'),
    subsystemDevice: id('subsystem_device'),
    revision: id('revision', 0xff),
  };
}

/** What `driver_override` says. The kernel prints a null pointer as `(null)`. @internal */
export function overrideOf(word: string | undefined): string | undefined {
  return word === '(null)' ? undefined : word;
}

function groupsOf(files: SysFiles, folder: string): Pick<PciFunction, 'group' | 'noIommuGroup'> {
  const number = groupNumber(files, folder);
  const withoutIommu = number !== undefined && isWithoutIommu(files, number);
  return withoutIommu ? { group: undefined, noIommuGroup: number } : { group: number, noIommuGroup: undefined };
}

function groupNumber(files: SysFiles, folder: string): number | undefined {
  const path = `${folder}/iommu_group`;
  const name = files.linkName(path);
  if (name === undefined) return undefined;
  if (/^\d{1,9}$/.test(name)) return Number(name);
  files.report(path, `leads to ${JSON.stringify(name.slice(0, 40))}, which is no number of a group`);
  return undefined;
}

/** `reset_method` is there since Linux 5.15, and only for what can be reset; `reset` alone says only that it can. */
function resetMethods(files: SysFiles, folder: string): readonly string[] | Unknown {
  const word = files.word(`${folder}/reset_method`);
  if (word !== undefined) return word.split(/\s+/).filter((method) => /^[a-z_]+$/.test(method));
  return files.has(`${folder}/reset`) && !files.has(`${folder}/reset_method`) ? 'unknown' : [];
}

function powerState(word: string | undefined): string | Unknown {
  return word !== undefined && /^D(?:[012]|3hot|3cold)$/.test(word) ? word : 'unknown';
}

function addressOfLink(files: SysFiles, path: string): string | undefined {
  const name = files.linkName(path);
  if (name === undefined || isPciAddress(name)) return name;
  files.report(path, `leads to ${JSON.stringify(name.slice(0, 40))}, which is no PCI address`);
  return undefined;
}

function virtualFunctions(files: SysFiles, folder: string): VirtualFunctions | undefined {
  if (!files.has(`${folder}/sriov_totalvfs`)) return undefined;
  const links = files.names(folder).filter((name) => /^virtfn\d{1,5}$/.test(name));
  const addresses = links.flatMap((name) => addressOfLink(files, `${folder}/${name}`) ?? []).sort(byAddress);
  return { most: files.number(`${folder}/sriov_totalvfs`, 0xffff), addresses };
}

/** -1 where there is none. */
function numaNode(files: SysFiles, folder: string): number | undefined {
  const path = `${folder}/numa_node`;
  if (files.word(path) === '-1') return undefined;
  const node = files.number(path, 0xffff);
  return node === 'unknown' ? undefined : node;
}

/**
 * Links lead to `…/pci0000:00/0000:00:07.0/0000:01:00.0`: the root bus, the bridges, the function. Behind some controllers
 * (Intel's VMD) another root bus follows on a function; the last one counts.
 */
function treePlaceOf(files: SysFiles, folder: string, address: string): Place | undefined {
  const parts = files.link(folder)?.split('/').filter(Boolean);
  if (parts === undefined) return undefined;
  const root = parts.findLastIndex((part) => /^pci[0-9a-f]{4,8}:[0-9a-f]{2}$/.test(part));
  const above = parts.slice(root + 1, -1);
  if (root === -1 || parts.at(-1) !== address || !above.every(isPciAddress) || above.includes(address)) {
    files.report(folder, `leads to ${JSON.stringify(parts.join('/').slice(-80))}, which is no place in a PCI tree`);
    return undefined;
  }
  return { rootBus: (parts[root] ?? '').slice('pci'.length), parent: above.at(-1) };
}
