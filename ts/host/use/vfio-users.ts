/**
 * Who has a function open through VFIO.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { isVfioDriver } from '../drivers.ts';
import type { Machine } from '../machine.ts';
import type { PciFunction } from '../model.ts';
import { filesOf } from '../vfio-files.ts';
import { usersOf } from './open-files.ts';

/**
 * Processes that have the function's group or its own file open; none where it is free. A process that can't be seen, in
 * another container, is told as one: a group can be open once only.
 *
 * @internal
 */
export function vfioUsers(machine: Machine, device: PciFunction): string[] {
  if (!isVfioDriver(device.driver)) return [];
  const { byGroup, own } = filesOf(device);
  const paths = [byGroup, own].filter((path) => path !== undefined);
  const users = usersOf(machine.openFiles, paths);
  if (users.length > 0 || byGroup === undefined || !isOpen(machine, byGroup)) return users;
  return ['a process that is not to be seen from here'];
}

/**
 * Whether a group, or by its own file a device of it, is open (Linux, drivers/vfio/group.c: `vfio_group_fops_open`). To
 * ask means to open it for a moment.
 */
function isOpen({ roots }: Machine, path: string): boolean {
  try {
    closeSync(openSync(join(roots.dev, path.slice('/dev/'.length)), constants.O_RDONLY | constants.O_NONBLOCK));
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EBUSY';
  }
}
