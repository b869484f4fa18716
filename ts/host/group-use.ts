/**
 * How the IOMMU groups of a host are used. Each group is evaluated once, not once for each of its devices.
 */
import { blockersOf, isVfioDriver } from './drivers.ts';
import type { HostMachine, PciFunction } from './model.ts';
import { membersOf } from './read-host.ts';

/** A member of a group: a PCI function or another device. @internal */
export interface GroupMember {
  /** The PCI address, or the kernel's name of another device. */
  readonly address: string;
  readonly driver: string | undefined;
}

/** How one group is used. @internal */
export interface GroupUse {
  /** PCI functions, in the order of their addresses. */
  readonly members: readonly PciFunction[];
  /** All members; those that are not PCI functions come last. */
  readonly all: readonly GroupMember[];
  /** Whether a member is bound to VFIO. */
  readonly bound: boolean;
  /** Members that host drivers use, PCI functions first. */
  readonly blockers: ReadonlySet<GroupMember>;
  /** Number of PCI functions among the blockers. */
  readonly pciBlockers: number;
}

/** @internal */
export class GroupUses {
  readonly #host: HostMachine;
  readonly #known = new Map<number, GroupUse>();

  constructor(host: HostMachine) {
    this.#host = host;
  }

  of(group: number): GroupUse {
    const known = this.#known.get(group) ?? useOf(membersOf(this.#host, group), othersOf(this.#host, group));
    this.#known.set(group, known);
    return known;
  }
}

/** Members of a group that are not PCI functions. @internal */
export function othersOf({ groups }: HostMachine, group: number): GroupMember[] {
  return (groups.get(group)?.others ?? []).map(({ name, driver }) => ({ address: name, driver }));
}

function useOf(members: readonly PciFunction[], others: readonly GroupMember[]): GroupUse {
  const pci = blockersOf(members);
  return {
    members,
    all: [...members, ...others],
    bound: members.some(({ driver }) => isVfioDriver(driver)),
    blockers: new Set([...pci, ...blockersOf(others)]),
    pciBlockers: pci.length,
  };
}
