/**
 * What keeps two devices from being assigned now: nothing of it is for good, so it does not change a verdict.
 */
import { blockersOf, isVfioDriver } from '../drivers.ts';
import { withoutGroup } from '../iommu.ts';
import type { Host, PciFunction } from '../model.ts';
import { membersOf } from '../read-host.ts';
import type { Reason } from './model.ts';

/** @internal */
export function needsOf(host: Host, initiator: PciFunction, target: PciFunction): Reason[] {
  const groups = new Set([initiator.group, target.group]);
  return [
    ...[initiator, target].flatMap((each) => assignment(each)),
    ...[...groups].flatMap((group) => (group === undefined ? [] : viability(host, group, [initiator, target]))),
    ...answering(target),
  ];
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

/** @param pair which, where none of the group is bound, each are told to be */
function viability(host: Host, group: number, pair: readonly PciFunction[]): Reason[] {
  const members = membersOf(host, group);
  const bound = members.some(({ driver }) => isVfioDriver(driver));
  const blockers = blockersOf(members).filter((member) => bound || !pair.includes(member));
  if (blockers.length === 0) return [];
  const list = blockers.map(({ address, driver }) => `${address} (${driver})`).join(', ');
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
