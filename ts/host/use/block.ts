/**
 * Finds the PCI functions below block devices.
 *
 * Follows partitions, dm (LVM, dm-crypt, multipath), md and NVMe multipath.
 */
import type { Machine } from '../machine.ts';
import type { SysFiles } from '../sys-files.ts';
import { functionsInPath } from './device-path.ts';
import { functionsOfRemoteDisk } from './remote-storage.ts';

const BLOCK = 'class/block';

/** Lists all block devices: `nvme0n1`, `nvme0n1p2`, `dm-0`. @internal */
export function blockDevices(sys: SysFiles): string[] {
  return sys.names(BLOCK);
}

/** Returns the name of a block device by its number, `259:2`. @internal */
export function blockDeviceOf(sys: SysFiles, number: string): string | undefined {
  return sys.linkName(`dev/block/${number}`);
}

/** @internal */
export function isBlockDevice(sys: SysFiles, name: string): boolean {
  return isName(name) && sys.has(`${BLOCK}/${name}`);
}

/** Returns the device mapper's name, such as `vg0-root`. @internal */
export function mapperName(sys: SysFiles, name: string): string | undefined {
  return sys.word(`${BLOCK}/${name}/dm/name`);
}

/** Whether the device consists of others (dm or md). @internal */
export function isStacked(sys: SysFiles, name: string): boolean {
  return sys.names(`${BLOCK}/${name}/slaves`).length > 0;
}

/** @internal */
export function isPartition(sys: SysFiles, name: string): boolean {
  return sys.has(`${BLOCK}/${name}/partition`);
}

/**
 * Returns the PCI functions that a block device depends on.
 *
 * @returns network interfaces by address of the function; `undefined` for a local device
 *
 * @internal
 */
export function functionsOfBlockDevice(machine: Machine, name: string): Map<string, string | undefined> {
  const { sys } = machine;
  const found = new Map<string, string | undefined>();
  const visited = new Set<string>();
  const visit = (device: string): void => {
    if (!isName(device) || visited.has(device)) return;
    visited.add(device);
    const path = sys.link(`${BLOCK}/${device}`) ?? '';
    const parts = path.split('/');
    const controllers = nvmeControllers(sys, parts);
    const above = controllers.flatMap((controller) => functionsInPath(sys.link(`class/nvme/${controller}`)));
    for (const address of [...functionsInPath(path), ...above]) found.set(address, undefined);
    for (const [address, by] of functionsOfRemoteDisk(machine, device, parts, controllers)) found.set(address, by);
    for (const slave of sys.names(`${BLOCK}/${device}/slaves`)) visit(slave);
    if (isPartition(sys, device)) visit(parts.at(-2) ?? '');
  };
  visit(name);
  return found;
}

/**
 * Returns the NVMe controllers of a namespace: the one in its path, or those of its subsystem.
 *
 * With native multipath a namespace belongs to its subsystem, below /sys/devices/virtual. The folder of the subsystem
 * links its controllers (Linux, drivers/nvme/host/core.c: `nvme_init_subsystem`).
 */
function nvmeControllers(sys: SysFiles, parts: readonly string[]): string[] {
  const at = parts.indexOf('nvme-subsystem');
  const subsystem = at === -1 ? '' : (parts[at + 1] ?? '');
  const names = isName(subsystem) ? sys.names(`class/nvme-subsystem/${subsystem}`) : parts;
  return names.filter((each) => /^nvme\d+$/.test(each));
}

/** Whether the text can be the name of a folder: targets of links are not trusted. */
function isName(text: string): boolean {
  return text !== '' && text !== '.' && text !== '..' && !text.includes('/');
}
