/**
 * Finds uses of a function for network.
 */
import { printable } from '../../printable.ts';
import type { Machine } from '../machine.ts';
import { interfacesBelow, interfacesWith } from './interfaces.ts';
import { loginAddresses } from './logins.ts';
import type { Use } from './model.ts';
import { placesText, readMounts } from './mounts.ts';
import { functionsOfMount } from './remote-storage.ts';
import { importantRoutes } from './routes.ts';

/** Finds logins, routes and remote file systems that use a function. @internal */
export function networkUses(machine: Machine, address: string): Use[] {
  const uses: Use[] = [];
  const add = (name: string, what: string): void => {
    const physical = interfacesBelow(machine, name).get(address);
    if (physical === undefined) return;
    const text = `carries ${what} (${physical === name ? name : `${name}, by ${physical}`})`;
    uses.push({ kind: 'network', text: printable(text) });
  };
  for (const login of loginAddresses(machine)) {
    for (const name of interfacesWith(machine, login)) add(name, `the login to ${login}`);
  }
  for (const { interface: name, isDefault } of importantRoutes(machine)) {
    add(name, isDefault ? 'the default route' : 'a route by way of a gateway');
  }
  for (const [name, places] of mountsBy(machine, address)) {
    const text = `carries the file ${places.length === 1 ? 'system' : 'systems'} at ${placesText(places)} (${name})`;
    uses.push({ kind: 'network', text: printable(text) });
  }
  return uses;
}

/** Maps interfaces of a function to the mount points of remote file systems that use them. */
function mountsBy(machine: Machine, address: string): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const mount of readMounts(machine.proc)) {
    const name = functionsOfMount(machine, mount).get(address);
    if (name !== undefined && mount.place !== undefined) found.set(name, [...(found.get(name) ?? []), mount.place]);
  }
  return found;
}
