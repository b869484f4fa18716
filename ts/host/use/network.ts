/**
 * The network interfaces of a function, and what hangs on them.
 */
import { printable } from '../../printable.ts';
import type { Machine } from '../machine.ts';
import { interfacesBelow } from './interfaces.ts';
import { loginAddresses, sameForm } from './logins.ts';
import type { Use } from './model.ts';
import { importantRoutes } from './routes.ts';

/** Which of the host's routes and logins go through a function. @internal */
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
  return uses;
}

function interfacesWith({ roots }: Machine, address: string): string[] {
  const found = [...roots.interfaceAddresses].filter(([, list]) => list.some((each) => sameForm(each) === address));
  return found.map(([name]) => name);
}
