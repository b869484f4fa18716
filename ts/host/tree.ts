/**
 * Finds the bridge above each function by the folders of /sys, or by the bus numbers of the bridges.
 */
import { byAddress } from './address.ts';
import type { RootBus } from './model.ts';
import type { Place, ReadFunction } from './pci-function.ts';
import { DEVICES, type SysFiles } from './sys-files.ts';

/** Finds the place of each function. Every parent is in the map, and no chain of parents has a loop. @internal */
export function findTreePlaces(files: SysFiles, functions: ReadonlyMap<string, ReadFunction>): Map<string, Place> {
  const found = new Map<string, Place>();
  const bridges = bridgesByBus(functions);
  for (const [address, { place }] of functions) found.set(address, place ?? byBusNumber(address, bridges));
  for (const [address, { parent }] of found) {
    if (parent === undefined) continue;
    const problem = wrongParent(address, parent, functions, found);
    if (problem === undefined) continue;
    files.report(`${DEVICES}/${address}`, `${problem}: it is treated as a function on its root bus`);
    found.set(address, { rootBus: found.get(address)?.rootBus ?? busOf(address), parent: undefined });
  }
  // The root bus of a function placed by bus numbers follows from the bridges above it.
  for (const [address, place] of found) found.set(address, { ...place, rootBus: rootBusOf(address, found) });
  return found;
}

function wrongParent(
  address: string,
  parent: string,
  functions: ReadonlyMap<string, ReadFunction>,
  found: ReadonlyMap<string, Place>,
): string | undefined {
  if (!functions.has(parent)) return `is behind ${parent}, which does not exist`;
  const visited = new Set([address]);
  for (let above: string | undefined = parent; above !== undefined; above = found.get(above)?.parent) {
    if (visited.has(above)) return `is behind itself, through ${above}`;
    visited.add(above);
  }
  return undefined;
}

/** Maps domain and bus number to the bridges directly above that bus. */
function bridgesByBus(functions: ReadonlyMap<string, ReadFunction>): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const [address, { bridge }] of functions) {
    if (typeof bridge !== 'object' || bridge.secondary === 0) continue;
    const bus = busBelow(address, bridge.secondary);
    const known = found.get(bus);
    if (known === undefined) found.set(bus, [address]);
    else known.push(address);
  }
  return found;
}

function byBusNumber(address: string, bridges: ReadonlyMap<string, readonly string[]>): Place {
  const parent = bridges.get(busOf(address))?.find((bridge) => bridge !== address);
  return { rootBus: busOf(parent ?? address), parent };
}

function rootBusOf(address: string, found: ReadonlyMap<string, Place>): string {
  let top = address;
  for (let above = found.get(top)?.parent; above !== undefined; above = found.get(top)?.parent) top = above;
  return found.get(top)?.rootBus ?? busOf(top);
}

/** Lists the root buses of functions whose places are known. @internal */
export function rootBuses(functions: ReadonlyMap<string, ReadFunction>, placed: ReadonlyMap<string, Place>): RootBus[] {
  const children = new Map<string, string[]>();
  for (const address of [...functions.keys()].sort(byAddress)) {
    const { parent, rootBus } = placed.get(address) ?? { parent: undefined, rootBus: busOf(address) };
    const siblings = children.get(rootBus) ?? [];
    children.set(rootBus, siblings);
    if (parent === undefined) siblings.push(address);
  }
  return [...children]
    .sort(([a], [b]) => byAddress(a, b))
    .map(([name, addresses]) => ({ name, hostBridge: hostBridge(functions, addresses[0]), children: addresses }));
}

/**
 * Returns the first function on the bus if it identifies the host bridge.
 *
 * The kernel uses the first function that it scanned, which is the one with the lowest address.
 */
function hostBridge(functions: ReadonlyMap<string, ReadFunction>, first: string | undefined): string | undefined {
  if (first === undefined) return undefined;
  return first.endsWith(':00.0') || functions.get(first)?.portType === 'root-port' ? first : undefined;
}

function busOf(address: string): string {
  return address.slice(0, address.lastIndexOf(':'));
}

/** Returns the name of a bus in the domain of a function: `0000:01`. */
function busBelow(address: string, number: number): string {
  return `${address.slice(0, address.indexOf(':'))}:${number.toString(16).padStart(2, '0')}`;
}
