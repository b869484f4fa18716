/**
 * All that the host uses a function for.
 */
import { isVfioDriver } from '../drivers.ts';
import type { Machine } from '../machine.ts';
import type { PciFunction } from '../model.ts';
import { displayUses, keyboardUses, serialUses } from './console.ts';
import { diskUses } from './disks.ts';
import type { Use } from './model.ts';
import { networkUses } from './network.ts';

/**
 * What would end if the function got another driver. Of a physical function also what its virtual functions are used for:
 * they go with it.
 *
 * @internal
 */
export function usesOf(machine: Machine, device: PciFunction): Use[] {
  const own = usesOfAlone(machine, device);
  const virtual = device.virtualFunctions?.addresses ?? [];
  if (virtual.length === 0) return own;
  const most = `${virtual.length} virtual ${virtual.length === 1 ? 'function' : 'functions'}`;
  const theirs = virtual
    .flatMap((address) => machine.host.functions.get(address) ?? [])
    .filter(({ driver }) => driver !== undefined)
    .flatMap((each) =>
      usesOfAlone(machine, each).map(({ kind, text }): Use => ({ kind, text: `has ${each.address}, which ${text}` })),
    );
  return [...own, { kind: 'virtual-functions', text: `has ${most} on, which go with it` }, ...theirs];
}

/** The host has nothing of what it has given to VFIO. */
function usesOfAlone(machine: Machine, device: PciFunction): Use[] {
  const { address, driver } = device;
  if (isVfioDriver(driver)) return [];
  return [
    ...diskUses(machine, address),
    ...networkUses(machine, address),
    ...displayUses(machine, device),
    ...serialUses(machine, address),
    ...keyboardUses(machine, address),
  ];
}
