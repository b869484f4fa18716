/**
 * Finds all uses of a function by the host.
 */
import { isVfioDriver } from '../drivers.ts';
import type { Machine } from '../machine.ts';
import type { PciFunction } from '../model.ts';
import { displayUses, keyboardUses, serialUses } from './console.ts';
import { diskUses } from './disks.ts';
import type { Use } from './model.ts';
import { networkUses } from './network.ts';

/**
 * Finds the uses that end if the function gets another driver.
 *
 * For a physical function this includes the uses of its virtual functions, which are removed with it.
 *
 * @internal
 */
export function usesOf(machine: Machine, device: PciFunction): Use[] {
  const own = usesOfAlone(machine, device);
  const virtual = device.virtualFunctions?.addresses ?? [];
  if (virtual.length === 0) return own;
  const count = `${virtual.length} virtual ${virtual.length === 1 ? 'function' : 'functions'}`;
  const theirs = virtual
    .flatMap((address) => machine.host.functions.get(address) ?? [])
    .filter(({ driver }) => driver !== undefined)
    .flatMap((each) =>
      usesOfAlone(machine, each).map(({ kind, text }): Use => ({ kind, text: `has ${each.address}, which ${text}` })),
    );
  return [...own, { kind: 'virtual-functions', text: `has ${count} on, which are removed with it` }, ...theirs];
}

/** A function that is bound to VFIO has no uses by the host. */
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
