/**
 * Finds processes that have a function open through VFIO.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { isVfioDriver } from '../drivers.ts';
import type { Machine } from '../machine.ts';
import type { PciFunction } from '../model.ts';
import { filesOf } from '../vfio-files.ts';
import { usersOf } from './open-files.ts';

/**
 * Lists the processes that have a function's group or device file open; empty if it is free.
 *
 * A group can be open only once, so a failed open reveals a process that /proc does not list, as in another container.
 *
 * @internal
 */
export function vfioUsers(machine: Machine, device: PciFunction): string[] {
  if (!isVfioDriver(device.driver)) return [];
  const { byGroup, own } = filesOf(device);
  const paths = [byGroup, own].filter((path) => path !== undefined);
  const users = usersOf(machine.openFiles, paths);
  if (users.length > 0 || byGroup === undefined || !isOpen(machine, byGroup)) return users;
  return ['a process that /proc does not list'];
}

/**
 * Whether a group, or a device of it by its own file, is open. Opens the group for a moment to find out (Linux,
 * drivers/vfio/group.c: `vfio_group_fops_open`).
 */
function isOpen({ roots }: Machine, path: string): boolean {
  try {
    closeSync(openSync(join(roots.dev, path.slice('/dev/'.length)), constants.O_RDONLY | constants.O_NONBLOCK));
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EBUSY';
  }
}
