/**
 * Arranges the functions of a host in a tree, all of them or only given ones.
 */
import type { HostMachine, PciFunction } from '../../host.ts';
import { childrenByParent } from '../../host/read-host.ts';

/** A function and the functions below it. */
export interface TreeNode {
  readonly device: PciFunction;
  readonly children: readonly TreeNode[];
}

/** A root bus. */
export interface TreeRoot {
  readonly bus: string;
  /** Name of the IOMMU, if all functions on the bus have the same one. */
  readonly iommu: string | undefined;
  readonly nodes: readonly TreeNode[];
  /** Number of functions on the bus that are left out. */
  readonly hidden: number;
}

/**
 * Returns the tree of a host.
 *
 * @param shown addresses of the functions to include, with the bridges above them; `undefined` for all functions
 */
export function treeOf(host: HostMachine, shown: ReadonlySet<string> | undefined): TreeRoot[] {
  const below = childrenByParent(host);
  const onBuses = functionsByRootBus(host);
  const nodeOf = (device: PciFunction): TreeNode | undefined => {
    const children = (below.get(device.address) ?? []).flatMap((child) => nodeOf(child) ?? []);
    const wanted = shown === undefined || shown.has(device.address) || children.length > 0;
    return wanted ? { device, children } : undefined;
  };
  return host.rootBuses.flatMap(({ name, children, hostBridge }) => {
    const nodes = children.flatMap((address) => {
      const device = host.functions.get(address);
      const node = device && nodeOf(device);
      // Includes the function of the host bridge if another function of the bus is included.
      return (
        node ?? (device !== undefined && address === hostBridge && shown !== undefined ? { device, children: [] } : [])
      );
    });
    const onBus = onBuses.get(name) ?? [];
    const hidden = onBus.length - nodes.reduce((sum, node) => sum + count(node), 0);
    const iommus = new Set(onBus.map(({ iommu }) => iommu));
    const iommu = iommus.size === 1 ? [...iommus][0] : undefined;
    if (
      shown !== undefined &&
      hidden === onBus.length - 1 &&
      nodes[0]?.device.address === hostBridge &&
      !shown.has(hostBridge ?? '')
    ) {
      return []; // only the host bridge
    }
    return nodes.length === 0 ? [] : [{ bus: name, iommu, nodes, hidden }];
  });
}

function functionsByRootBus({ functions }: HostMachine): Map<string, PciFunction[]> {
  const buses = new Map<string, PciFunction[]>();
  for (const each of functions.values()) {
    const known = buses.get(each.rootBus);
    if (known === undefined) buses.set(each.rootBus, [each]);
    else known.push(each);
  }
  return buses;
}

function count({ children }: TreeNode): number {
  return 1 + children.reduce((sum, child) => sum + count(child), 0);
}
