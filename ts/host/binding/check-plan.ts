/**
 * Checks a binding plan: rejects harmful changes and collects warnings.
 */
import { PeerDmaError } from '../../errors.ts';
import { blockersOf, bridgeRefused } from '../drivers.ts';
import { directRegionsOf } from '../direct-regions.ts';
import { noGroupText } from '../iommu.ts';
import type { Machine } from '../machine.ts';
import type { HostMachine, PciFunction } from '../model.ts';
import { type GroupMember, othersOf } from '../group-use.ts';
import { membersOf } from '../read-host.ts';
import { usesOf } from '../use/uses.ts';
import { vfioUsers } from '../use/vfio-users.ts';
import type { BindingPlan } from './plan.ts';

/** The host uses devices of a plan. @internal */
export class DeviceNeededError extends PeerDmaError {
  readonly reasons: readonly string[];

  constructor(reasons: readonly string[], bdf: string) {
    super('ERR_DEVICE_NEEDED', `this machine would lose what it uses: ${reasons.join('; ')}`, { bdf });
    this.reasons = reasons;
  }
}

/**
 * Checks whether a plan can be carried out.
 *
 * @param force whether to take devices that the host uses. Changes that cannot work or would block are always rejected
 * @returns warnings for the user
 * @throws {PeerDmaError} `ERR_UNSUPPORTED` for a bridge, `ERR_NO_IOMMU_GROUP` for a device without a group,
 *   `ERR_DEVICE_IN_USE` if a process has a device open through VFIO, `ERR_DEVICE_NEEDED` if the host uses a device
 * @internal
 */
export function checkPlan(machine: Machine, plan: BindingPlan, force: boolean): string[] {
  const warnings: string[] = [];
  const needed: { readonly address: string; readonly reason: string }[] = [];
  for (const { device, to } of plan.changes) {
    if (to !== undefined) checkAssignable(machine.host, device);
    checkNotOpen(machine, device);
    const { address } = device;
    for (const { kind, text } of usesOf(machine, device)) {
      if (kind === 'keyboard') warnings.push(`${address} ${text}`);
      else needed.push({ address, reason: `${address} ${text}` });
    }
  }
  const [first] = needed;
  if (first !== undefined && !force) {
    const reasons = needed.map(({ reason }) => reason);
    throw new DeviceNeededError(reasons, first.address);
  }
  const { host } = machine;
  const direct = devicesBoundBy(plan).flatMap((device) => directRegionsOf(host, host.kernel, device)?.text ?? []);
  return [...needed.map(({ reason }) => reason), ...warnings, ...direct, ...describeUnboundMembers(host, plan)];
}

/** Rejects devices that VFIO cannot assign (Linux, `vfio_pci_core_register_device`). */
function checkAssignable(host: HostMachine, { address, bridge, group }: PciFunction): void {
  if (bridge !== undefined) {
    throw new PeerDmaError('ERR_UNSUPPORTED', bridgeRefused(address), {
      bdf: address,
    });
  }
  if (group === undefined) {
    throw new PeerDmaError('ERR_NO_IOMMU_GROUP', noGroupText(address, host.groups.size > 0), { bdf: address });
  }
}

/** Rejects open devices. Unbinding blocks until they are closed (Linux, drivers/vfio: `vfio_unregister_group_dev`). */
function checkNotOpen(machine: Machine, device: PciFunction): void {
  const virtual = device.virtualFunctions?.addresses ?? [];
  for (const address of [device.address, ...virtual]) {
    const found = machine.host.functions.get(address);
    const users = found === undefined ? [] : vfioUsers(machine, found);
    if (users.length === 0) continue;
    const subject = address === device.address ? address : `${address}, a virtual function of ${device.address},`;
    throw new PeerDmaError(
      'ERR_DEVICE_IN_USE',
      `${subject} or its group is open in ${users.join(', ')}: unbinding would block until it is closed there. Close it first`,
      { bdf: address },
    );
  }
}

/** Devices that a plan binds to VFIO. */
function devicesBoundBy({ changes }: BindingPlan): PciFunction[] {
  return changes.filter(({ to }) => to !== undefined).map(({ device }) => device);
}

/** Lists members that the host keeps, and that so keep their group from being assigned. */
function describeUnboundMembers(host: HostMachine, plan: BindingPlan): string[] {
  const { unchanged } = plan;
  const bound = devicesBoundBy(plan);
  const given = new Set([...bound, ...unchanged]);
  const groups = new Set(bound.flatMap(({ group }) => group ?? []));
  return [...groups].flatMap((group) => {
    const rest = membersOf(host, group).filter((member) => !given.has(member));
    const list = (members: readonly GroupMember[]): string =>
      blockersOf(members)
        .map(({ address, driver }) => `${address} (driver ${driver})`)
        .join(', ');
    const [pci, others] = [list(rest), list(othersOf(host, group))];
    const blocked = `IOMMU group ${group} cannot be assigned yet, since the host also has`;
    return [
      ...(pci === '' ? [] : [`${blocked} ${pci}: --group binds them too`]),
      ...(others === '' ? [] : [`${blocked} ${others}: unbind devices that are not PCI functions by hand`]),
    ];
  });
}
