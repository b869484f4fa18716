/**
 * The network interfaces of a function, and what hangs on them.
 */
import { printable } from '../../printable.ts';
import type { Machine } from '../machine.ts';
import type { SysFiles } from '../sys-files.ts';
import { functionsInPath } from './device-path.ts';
import { loginAddresses, sameForm } from './logins.ts';
import type { Use } from './model.ts';
import { importantRoutes } from './routes.ts';

/** Which of the host's routes and logins go through a function. @internal */
export function networkUses(machine: Machine, address: string): Use[] {
  const uses: Use[] = [];
  const add = (name: string, what: string): void => {
    const physical = interfacesBelow(machine.sys, name).get(address);
    if (physical === undefined) return;
    const text = `carries ${what} (${physical === name ? name : `${name}, by ${physical}`})`;
    uses.push({ kind: 'network', text: printable(text) });
  };
  for (const login of loginAddresses(machine)) {
    for (const name of interfacesWith(machine, login)) add(name, `the login to ${login}`);
  }
  for (const { interface: name, isDefault } of importantRoutes(machine.proc)) {
    add(name, isDefault ? 'the default route' : 'a route by way of a gateway');
  }
  return uses;
}

function interfacesWith({ roots }: Machine, address: string): string[] {
  const found = [...roots.interfaceAddresses].filter(([, list]) => list.some((each) => sameForm(each) === address));
  return found.map(([name]) => name);
}

/**
 * The functions that an interface needs, each with the interface that is its own: bonds, bridges, VLANs, macvlans have
 * links to the interfaces below them (Linux, net/core/dev.c: `netdev_adjacent_sysfs_add`).
 */
function interfacesBelow(sys: SysFiles, name: string): Map<string, string> {
  const found = new Map<string, string>();
  const seen = new Set<string>();
  const visit = (each: string): void => {
    if (seen.has(each) || each.includes('/')) return;
    seen.add(each);
    const folder = `class/net/${each}`;
    for (const address of functionsInPath(sys.link(folder))) found.set(address, each);
    for (const entry of sys.names(folder)) if (entry.startsWith('lower_')) visit(entry.slice('lower_'.length));
  };
  visit(name);
  return found;
}
