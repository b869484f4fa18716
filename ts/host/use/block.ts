/**
 * Block devices and the PCI functions that they sit on, through partitions, dm (LVM, dm-crypt, multipath), md and NVMe
 * multipath.
 */
import type { SysFiles } from '../sys-files.ts';
import { functionsInPath } from './device-path.ts';

const BLOCK = 'class/block';

/** Names of all block devices: `nvme0n1`, `nvme0n1p2`, `dm-0`. @internal */
export function blockDevices(sys: SysFiles): string[] {
  return sys.names(BLOCK);
}

/** The name of a block device by its number, `259:2`. @internal */
export function blockDeviceOf(sys: SysFiles, number: string): string | undefined {
  return sys.linkName(`dev/block/${number}`);
}

/** @internal */
export function isBlockDevice(sys: SysFiles, name: string): boolean {
  return isName(name) && sys.has(`${BLOCK}/${name}`);
}

/** Of dm its own name, such as `vg0-root`. @internal */
export function mapperName(sys: SysFiles, name: string): string | undefined {
  return sys.word(`${BLOCK}/${name}/dm/name`);
}

/** Whether the device is made of others: dm or md. @internal */
export function isStacked(sys: SysFiles, name: string): boolean {
  return sys.names(`${BLOCK}/${name}/slaves`).length > 0;
}

/** @internal */
export function isPartition(sys: SysFiles, name: string): boolean {
  return sys.has(`${BLOCK}/${name}/partition`);
}

/** Addresses of the PCI functions without which the device would not be there, or not whole. @internal */
export function functionsOfBlockDevice(sys: SysFiles, name: string): Set<string> {
  const found = new Set<string>();
  const seen = new Set<string>();
  const visit = (device: string): void => {
    if (!isName(device) || seen.has(device)) return;
    seen.add(device);
    const path = sys.link(`${BLOCK}/${device}`) ?? '';
    const parts = path.split('/');
    for (const address of [...functionsInPath(path), ...controllersOfSubsystem(sys, parts)]) found.add(address);
    for (const slave of sys.names(`${BLOCK}/${device}/slaves`)) visit(slave);
    if (isPartition(sys, device)) visit(parts.at(-2) ?? '');
  };
  visit(name);
  return found;
}

/**
 * With native multipath a namespace belongs to the subsystem, below /sys/devices/virtual, whose folder links its controllers
 * (Linux, drivers/nvme/host/core.c: `nvme_init_subsystem`).
 */
function controllersOfSubsystem(sys: SysFiles, parts: readonly string[]): string[] {
  const at = parts.indexOf('nvme-subsystem');
  const subsystem = at === -1 ? '' : (parts[at + 1] ?? '');
  if (!isName(subsystem)) return [];
  const controllers = sys.names(`class/nvme-subsystem/${subsystem}`).filter((each) => /^nvme\d+$/.test(each));
  return controllers.flatMap((controller) => functionsInPath(sys.link(`class/nvme/${controller}`)));
}

/** What may be a folder's name: links are as they are written. */
function isName(text: string): boolean {
  return text !== '' && text !== '.' && text !== '..' && !text.includes('/');
}
