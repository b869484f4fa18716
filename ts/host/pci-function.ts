/**
 * Reads a function from its folder below /sys/bus/pci/devices.
 */
import { byAddress, isPciAddress } from './address.ts';
import { type ConfigFacts, readConfig } from './config-facts.ts';
import { readGroupNumbers } from './iommu.ts';
import { readLink } from './link.ts';
import type { PciFunction, PciIds, UnknownFact, VirtualFunctions } from './model.ts';
import { readResources } from './resources.ts';
import { DEVICES, type SysFiles } from './sys-files.ts';
import { readVfioFile } from './vfio-files.ts';

/** Classes of bridges, without the programming interface. They are PCI-to-PCI, CardBus and semi-transparent bridges. */
const BRIDGE_CLASSES: ReadonlySet<number> = new Set([0x0604, 0x0607, 0x0609]);

/** A function as read from its folder; its place in the tree may depend on other functions. @internal */
export interface ReadFunction extends Omit<PciFunction, 'parent' | 'rootBus'> {
  readonly place: Place | undefined;
  readonly virtualMemoryDecode: boolean | UnknownFact;
}

/** The place of a function in the PCI tree. @internal */
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
    ...readGroupNumbers(files, folder),
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
    vfioFile: readVfioFile(files, folder),
    place: treePlaceOf(files, folder, address),
  };
}

/**
 * Detects a bridge by its header type, or by its class if the header cannot be read. VFIO uses the header type (Linux,
 * `vfio_pci_core_register_device`).
 */
function bridgeOf({ bridge }: ConfigFacts, classCode: number | UnknownFact): ConfigFacts['bridge'] {
  if (bridge !== 'unknown') return bridge;
  return classCode !== 'unknown' && BRIDGE_CLASSES.has(classCode >> 8) ? 'unknown' : undefined;
}

function readIds(files: SysFiles, folder: string): PciIds {
  const id = (name: string, most = 0xffff): number | UnknownFact => files.number(`${folder}/${name}`, most);
  return {
    vendor: id('vendor'),
    device: id('device'),
    subsystemVendor: id('subsystem_vendor'),
    subsystemDevice: id('subsystem_device'),
    revision: id('revision', 0xff),
  };
}

/** Parses `driver_override`. The kernel prints a null pointer as `(null)`. @internal */
export function overrideOf(word: string | undefined): string | undefined {
  return word === '(null)' ? undefined : word;
}

/** Linux 5.15 and later list the methods in `reset_method`; `reset` alone only shows that there is one. */
function resetMethods(files: SysFiles, folder: string): readonly string[] | UnknownFact {
  const word = files.word(`${folder}/reset_method`);
  if (word !== undefined) return word.split(/\s+/).filter((method) => /^[a-z_]+$/.test(method));
  return files.has(`${folder}/reset`) && !files.has(`${folder}/reset_method`) ? 'unknown' : [];
}

function powerState(word: string | undefined): string | UnknownFact {
  return word !== undefined && /^D(?:[012]|3hot|3cold)$/.test(word) ? word : 'unknown';
}

function addressOfLink(files: SysFiles, path: string): string | undefined {
  const name = files.linkName(path);
  if (name === undefined || isPciAddress(name)) return name;
  files.report(path, `links to ${JSON.stringify(name.slice(0, 40))}, which is not a PCI address`);
  return undefined;
}

function virtualFunctions(files: SysFiles, folder: string): VirtualFunctions | undefined {
  if (!files.has(`${folder}/sriov_totalvfs`)) return undefined;
  const links = files.names(folder).filter((name) => /^virtfn\d{1,5}$/.test(name));
  const addresses = links.flatMap((name) => addressOfLink(files, `${folder}/${name}`) ?? []).sort(byAddress);
  return { most: files.number(`${folder}/sriov_totalvfs`, 0xffff), addresses };
}

/** The kernel prints -1 for no node. */
function numaNode(files: SysFiles, folder: string): number | undefined {
  const path = `${folder}/numa_node`;
  if (files.word(path) === '-1') return undefined;
  const node = files.number(path, 0xffff);
  return node === 'unknown' ? undefined : node;
}

/**
 * Derives the place from the target of the folder's link.
 *
 * The target is `…/pci0000:00/0000:00:07.0/0000:01:00.0`: the root bus, the bridges, the function. Below some
 * controllers (Intel's VMD) a function has another root bus below it; the last root bus counts.
 */
function treePlaceOf(files: SysFiles, folder: string, address: string): Place | undefined {
  const parts = files.link(folder)?.split('/').filter(Boolean);
  if (parts === undefined) return undefined;
  const root = parts.findLastIndex((part) => /^pci[0-9a-f]{4,8}:[0-9a-f]{2}$/.test(part));
  const above = parts.slice(root + 1, -1);
  if (root === -1 || parts.at(-1) !== address || !above.every(isPciAddress) || above.includes(address)) {
    files.report(folder, `links to ${JSON.stringify(parts.join('/').slice(-80))}, which is not a place in a PCI tree`);
    return undefined;
  }
  return { rootBus: (parts[root] ?? '').slice('pci'.length), parent: above.at(-1) };
}
