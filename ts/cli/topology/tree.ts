/**
 * The functions of a host as a tree, as far as it is worth showing.
 */
import type { Host, PciFunction } from '../../host/index.ts';
import { childrenByParent } from '../../host/read-host.ts';

/** A function and what is behind it. */
export interface TreeNode {
  readonly device: PciFunction;
  readonly children: readonly TreeNode[];
}

/** A root bus. */
export interface TreeRoot {
  readonly bus: string;
  /** Name of the IOMMU of what is on it, where all of that has the same one. */
  readonly iommu: string | undefined;
  readonly nodes: readonly TreeNode[];
  /** Functions on it that are left out. */
  readonly hidden: number;
}

/**
 * @param shown addresses that have to be there, with the bridges above them; `undefined` for all
 */
export function treeOf(host: Host, shown: ReadonlySet<string> | undefined): TreeRoot[] {
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
      // What stands for the host bridge is worth a line wherever something of the bus is shown.
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
      return []; // nothing on it but the host bridge
    }
    return nodes.length === 0 ? [] : [{ bus: name, iommu, nodes, hidden }];
  });
}

function functionsByRootBus({ functions }: Host): Map<string, PciFunction[]> {
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
