/**
 * Prerequisites of a pair: conditions that keep two devices from being assigned now. They do not change a verdict.
 */
import { directRegionsOf } from '../direct-regions.ts';
import { isVfioDriver } from '../drivers.ts';
import { type GroupUse, GroupUses } from '../group-use.ts';
import { noGroupText } from '../iommu.ts';
import { listed, without } from '../listed.ts';
import type { HostMachine, PciFunction } from '../model.ts';
import { tokenOfVirtual } from '../vf-token.ts';
import type { PeerReason } from './model.ts';

interface DeviceReasons {
  readonly assignment: readonly PeerReason[];
  /** Reasons why the device does not respond. */
  readonly silence: readonly PeerReason[];
  /** Reasons why its BARs cannot be mapped. */
  readonly decoding: readonly PeerReason[];
  readonly notes: readonly PeerReason[];
}

/** Caches the prerequisites of devices and groups for all cells of a matrix. @internal */
export class Readiness {
  readonly #host: HostMachine;
  readonly #groups: GroupUses;
  readonly #devices = new Map<PciFunction, DeviceReasons>();

  constructor(host: HostMachine) {
    this.#host = host;
    this.#groups = new GroupUses(host);
  }

  prerequisitesOf(initiator: PciFunction, target: PciFunction): PeerReason[] {
    const groups = new Set([initiator.group, target.group]);
    return [
      ...this.#device(initiator).assignment,
      ...this.#device(target).assignment,
      ...[...groups].flatMap((group) =>
        group === undefined ? [] : viability(group, this.#groups.of(group), [initiator, target]),
      ),
      ...this.#device(initiator).silence,
      ...this.#device(target).silence,
      ...this.#device(target).decoding,
    ];
  }

  /** Returns reasons that do not prevent assignment. */
  notesOf(initiator: PciFunction, target: PciFunction): PeerReason[] {
    return [...this.#device(initiator).notes, ...this.#device(target).notes];
  }

  #device(device: PciFunction): DeviceReasons {
    const known = this.#devices.get(device) ?? reasonsOf(this.#host, device);
    this.#devices.set(device, known);
    return known;
  }
}

function reasonsOf(host: HostMachine, device: PciFunction): DeviceReasons {
  const { address, group, driver } = device;
  const prerequisites: PeerReason[] = [];
  if (group === undefined) {
    prerequisites.push({ code: 'no-iommu', text: noGroupText(address, host.groups.size > 0) });
  }
  const direct = directRegionsOf(host, host.kernel, device);
  const regions: PeerReason[] = direct === undefined ? [] : [{ code: 'direct-regions', text: direct.text }];
  const kept = direct?.kept === true;
  if (kept) prerequisites.push(...regions);
  // Binding a device that the kernel keeps from VFIO does not help.
  if (!isVfioDriver(driver) && !kept) {
    const state = driver === undefined ? 'has no driver' : `is used by the driver ${driver}`;
    prerequisites.push({ code: 'not-bound', text: `${address} ${state}: bind it to vfio-pci` });
  }
  const token = tokenOfVirtual(host, device);
  if (token !== undefined) prerequisites.push({ code: 'vf-token', text: token });
  const silence = silenceOf(device);
  // The registers of a silent device reveal nothing about its BARs.
  const decoding = silence.length > 0 ? [] : decodingOf(device);
  return { assignment: prerequisites, silence, decoding, notes: kept ? [] : regions };
}

/** @param pair devices to skip while no member of the group is bound: `assignment` reports them already */
function viability(group: number, { bound, blockers }: GroupUse, pair: readonly PciFunction[]): PeerReason[] {
  const excepted = new Set(bound ? [] : pair.filter((device) => blockers.has(device)));
  const count = blockers.size - excepted.size;
  if (count === 0) return [];
  const list = listed(without(blockers, excepted), count, ({ address, driver }) => `${address} (${driver})`);
  return [
    { code: 'group-not-viable', text: `IOMMU group ${group} is assigned as a whole, and the host uses ${list} of it` },
  ];
}

function silenceOf({ address, responds, configBytes }: PciFunction): PeerReason[] {
  if (responds === true || (responds === 'unknown' && configBytes === 0)) return [];
  return [{ code: 'not-responding', text: `${address} does not respond: its config space is invalid` }];
}

/** Opening a device with VFIO wakes it and enables memory decode (Linux, `vfio_pci_core_enable`). */
function decodingOf({ address, memoryDecode, powerState, physicalFunction }: PciFunction): PeerReason[] {
  if (/^D[123]/.test(powerState)) {
    return [
      {
        code: 'low-power-state',
        text: `${address} is in a low-power state (${powerState}) and decodes no BAR. Opening it with VFIO wakes it`,
      },
    ];
  }
  if (memoryDecode !== false) return [];
  const text =
    physicalFunction === undefined
      ? `${address} has memory decode off, so its BARs cannot be mapped. Opening it with VFIO turns it on`
      : `virtual functions of ${physicalFunction} have memory decode off. Enabling them (sriov_numvfs) turns it on`;
  return [{ code: 'decode-off', text }];
}
