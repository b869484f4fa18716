/**
 * What keeps two devices from being assigned now: nothing of it is for good, so it does not change a verdict.
 */
import { blockersOf, isVfioDriver } from '../drivers.ts';
import { withoutGroup } from '../iommu.ts';
import type { Host, PciFunction } from '../model.ts';
import { membersOf } from '../read-host.ts';
import type { Reason } from './model.ts';

/** Names of devices that a reason lists; of more it gives the number. */
const MOST_NAMES = 8;

interface DeviceNeeds {
  readonly assignment: readonly Reason[];
  readonly answering: readonly Reason[];
}

/** How a group is used: whether a member is bound to VFIO, and the members that host drivers use. */
interface GroupUse {
  readonly bound: boolean;
  readonly blockers: ReadonlySet<PciFunction>;
}

/** Reasons of the devices and groups of a host, each made once for all cells of a matrix. @internal */
export class Readiness {
  readonly #host: Host;
  readonly #groups = new Map<number, GroupUse>();
  readonly #devices = new Map<PciFunction, DeviceNeeds>();

  constructor(host: Host) {
    this.#host = host;
  }

  needsOf(initiator: PciFunction, target: PciFunction): Reason[] {
    const groups = new Set([initiator.group, target.group]);
    return [
      ...this.#device(initiator).assignment,
      ...this.#device(target).assignment,
      ...[...groups].flatMap((group) =>
        group === undefined ? [] : viability(group, this.#use(group), [initiator, target]),
      ),
      ...this.#device(target).answering,
    ];
  }

  #device(device: PciFunction): DeviceNeeds {
    const known = this.#devices.get(device) ?? { assignment: assignment(device), answering: answering(device) };
    this.#devices.set(device, known);
    return known;
  }

  #use(group: number): GroupUse {
    const known = this.#groups.get(group) ?? useOf(membersOf(this.#host, group));
    this.#groups.set(group, known);
    return known;
  }
}

function useOf(members: readonly PciFunction[]): GroupUse {
  return {
    bound: members.some(({ driver }) => isVfioDriver(driver)),
    blockers: new Set(blockersOf(members)),
  };
}

function assignment({ address, group, driver }: PciFunction): Reason[] {
  const needs: Reason[] = [];
  if (group === undefined) {
    needs.push({ code: 'no-iommu', text: withoutGroup(address) });
  }
  if (!isVfioDriver(driver)) {
    const state = driver === undefined ? 'has no driver' : `is used by the driver ${driver}`;
    needs.push({ code: 'not-bound', text: `${address} ${state}: bind it to vfio-pci` });
  }
  return needs;
}

/** @param pair is excepted while no member of the group is bound: `assignment` says to bind each of the two */
function viability(group: number, { bound, blockers }: GroupUse, pair: readonly PciFunction[]): Reason[] {
  const excepted = new Set(bound ? [] : pair.filter((device) => blockers.has(device)));
  const count = blockers.size - excepted.size;
  if (count === 0) return [];
  const names: string[] = [];
  for (const blocker of blockers) {
    if (names.length === MOST_NAMES) break;
    if (!excepted.has(blocker)) names.push(`${blocker.address} (${blocker.driver})`);
  }
  const more = count - names.length;
  const list = names.join(', ') + (more === 0 ? '' : ` and ${more} more`);
  return [{ code: 'group-not-viable', text: `group ${group} is assigned as a whole, and the host uses ${list} of it` }];
}

/** Opening a device with VFIO wakes it and turns its memory on (Linux, vfio_pci_core_enable); what runs then may undo it. */
function answering({
  address,
  answers,
  memoryDecode,
  powerState,
  configBytes,
  physicalFunction,
}: PciFunction): Reason[] {
  if (answers === false || (answers === 'unknown' && configBytes > 0)) {
    return [{ code: 'not-answering', text: `${address} does not answer: its config space makes no sense` }];
  }
  if (/^D[123]/.test(powerState)) {
    return [
      {
        code: 'asleep',
        text: `${address} sleeps (${powerState}), and its BARs with it: opening it with VFIO wakes it`,
      },
    ];
  }
  if (memoryDecode !== false) return [];
  const text =
    physicalFunction === undefined
      ? `${address} has memory decode off, so its BARs can't be mapped: opening it with VFIO turns it on`
      : `virtual functions of ${physicalFunction} have memory decode off: turning them on (sriov_numvfs) turns it on`;
  return [{ code: 'decode-off', text }];
}
