/**
 * Finds disks of a function and how the host uses them.
 */
import { closeSync, constants, openSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';
import { printable } from '../../printable.ts';
import type { Machine } from '../machine.ts';
import {
  blockDeviceOf,
  blockDevices,
  functionsOfBlockDevice,
  isBlockDevice,
  isPartition,
  isStacked,
  mapperName,
} from './block.ts';
import { functionsInPath } from './device-path.ts';
import type { Use } from './model.ts';
import { type MountedFrom, placesText, readMounts, readSwaps } from './mounts.ts';
import { usersOf } from './open-files.ts';

/** Finds uses of a function for storage. @internal */
export function diskUses(machine: Machine, address: string): Use[] {
  const on = (name: string): boolean => functionsOfBlockDevice(machine, name).has(address);
  const text = (name: string): string => described(machine, name, functionsOfBlockDevice(machine, name).get(address));
  const places = new Map<string, Set<string>>();
  for (const mount of [...readMounts(machine.proc), ...readSwaps(machine.proc)]) {
    for (const name of devicesOf(machine, mount)) {
      places.set(name, (places.get(name) ?? new Set()).add(mount.place ?? 'swap'));
    }
  }
  const mounted = [...places].filter(([name]) => on(name));
  const shares = sharesOf(machine, address);
  if (mounted.length > 0 || shares.length > 0) {
    return [
      ...mounted.map(([name, where]) => use(`holds ${placesText([...where])} (${text(name)})`)),
      ...shares.map((place) => use(`holds ${place} (a share of the hypervisor)`)),
    ];
  }
  // Nothing is mounted. Volumes and disks can be in use otherwise, such as by ZFS.
  const names = blockDevices(machine.sys).filter(on);
  const stacked = names.filter((name) => isStacked(machine.sys, name));
  if (stacked.length > 0) return stacked.map((name) => use(`holds a part of ${text(name)}`));
  return names.flatMap((name) => {
    const users = usersOf(machine.openFiles, [`/dev/${name}`]);
    if (users.length > 0) return [use(`holds ${text(name)}, which is open in ${users.join(', ')}`)];
    const claimed = !isPartition(machine.sys, name) && isClaimed(machine, name);
    return claimed ? [use(`holds ${text(name)}, which something on the host has claimed`)] : [];
  });
}

function use(text: string): Use {
  return { kind: 'disk', text: printable(text) };
}

/** @param by network interface of a remote disk */
function described({ sys }: Machine, name: string, by: string | undefined): string {
  return [mapperName(sys, name), name, by && `by ${by}`].filter((part) => part !== undefined).join(', ');
}

/** Returns the block devices of a file system. Btrfs and others have several, and a number of no device. */
function devicesOf(machine: Machine, { number, source, type }: MountedFrom): string[] {
  const byNumber = number === undefined || number.startsWith('0:') ? undefined : blockDeviceOf(machine.sys, number);
  if (byNumber !== undefined) return [byNumber];
  // bcachefs separates its devices by colons.
  const found = source.split(':').flatMap((path) => deviceAt(machine, path) ?? []);
  return type === 'btrfs' ? found.flatMap((name) => withItsFileSystem(machine, name)) : found;
}

/** Returns the block device of a path below /dev. */
function deviceAt({ roots, sys }: Machine, path: string): string | undefined {
  if (!path.startsWith('/dev/')) return undefined;
  let name = basename(path);
  try {
    name = basename(realpathSync(join(roots.dev, path.slice('/dev/'.length))));
  } catch {
    // Use only the name: the path may be of another /dev.
  }
  if (isBlockDevice(sys, name)) return name;
  return blockDevices(sys).find((each) => mapperName(sys, each) === basename(path));
}

/** Returns all devices of the Btrfs that contains one (`/sys/fs/btrfs/UUID/devices`). */
function withItsFileSystem({ sys }: Machine, name: string): string[] {
  const all = sys.names('fs/btrfs').map((uuid) => sys.names(`fs/btrfs/${uuid}/devices`));
  return all.find((names) => names.includes(name)) ?? [name];
}

/** Returns mount points of the hypervisor's shares through this function: 9p by tag, any virtiofs. */
function sharesOf({ sys, proc }: Machine, address: string): string[] {
  const devices = sys
    .names('bus/virtio/devices')
    .filter((name) => functionsInPath(sys.link(`bus/virtio/devices/${name}`)).includes(address));
  const tags = devices.map((name) => sys.word(`bus/virtio/devices/${name}/mount_tag`));
  const isVirtioFs = devices.some((name) => sys.linkName(`bus/virtio/devices/${name}/driver`) === 'virtiofs');
  const places = readMounts(proc)
    .filter(({ type, source }) => (type === '9p' ? tags.includes(source) : type === 'virtiofs' && isVirtioFs))
    .map(({ place = '' }) => place);
  return [...new Set(places)];
}

/**
 * Whether a disk, or a partition of it, is claimed.
 *
 * File systems, dm, md, swap and ZFS claim their devices, and the kernel then rejects an exclusive open (Linux,
 * block/bdev.c: `bd_prepare_to_claim`; open(2), O_EXCL).
 */
function isClaimed({ roots }: Machine, name: string): boolean {
  try {
    const path = join(roots.dev, name.replaceAll('!', '/'));
    closeSync(openSync(path, constants.O_RDONLY | constants.O_EXCL | constants.O_NONBLOCK));
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EBUSY';
  }
}
