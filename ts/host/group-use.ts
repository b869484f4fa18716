/**
 * How the IOMMU groups of a host are used, each found once: what is said of every device of a group costs no walk
 * through the group for each.
 */
import { blockersOf, isVfioDriver } from './drivers.ts';
import type { Host, PciFunction } from './model.ts';
import { membersOf } from './read-host.ts';

/** How one group is used. @internal */
export interface GroupUse {
  /** In the order of their addresses. */
  readonly members: readonly PciFunction[];
  /** Whether a member is bound to VFIO. */
  readonly bound: boolean;
  /** Members that host drivers use. */
  readonly blockers: ReadonlySet<PciFunction>;
}

/** @internal */
export class GroupUses {
  readonly #host: Host;
  readonly #known = new Map<number, GroupUse>();

  constructor(host: Host) {
    this.#host = host;
  }

  of(group: number): GroupUse {
    const known = this.#known.get(group) ?? useOf(membersOf(this.#host, group));
    this.#known.set(group, known);
    return known;
  }
}

function useOf(members: readonly PciFunction[]): GroupUse {
  return {
    members,
    bound: members.some(({ driver }) => isVfioDriver(driver)),
    blockers: new Set(blockersOf(members)),
  };
}
