/**
 * What a change of drivers is refused for, and what is only said.
 */
import { PeerDmaError } from '../../errors.ts';
import { blockersOf, bridgeRefused } from '../drivers.ts';
import { directRegionsOf } from '../direct-regions.ts';
import { withoutGroup } from '../iommu.ts';
import type { Machine } from '../machine.ts';
import type { Host, PciFunction } from '../model.ts';
import { type GroupMember, othersOf } from '../group-use.ts';
import { membersOf } from '../read-host.ts';
import { usesOf } from '../use/uses.ts';
import { vfioUsers } from '../use/vfio-users.ts';
import type { BindingPlan } from './plan.ts';

/** The host uses devices of a plan, each for a reason. @internal */
export class DeviceNeededError extends PeerDmaError {
  readonly reasons: readonly string[];

  constructor(reasons: readonly string[], device: string) {
    super('ERR_DEVICE_NEEDED', `this machine would lose what it uses: ${reasons.join('; ')}`, { device });
    this.reasons = reasons;
  }
}

/**
 * Looks whether a plan may be carried out.
 *
 * @param force whether to take from the host what it uses; what can't work, or would wait for ever, is refused all the same
 * @returns what the user should know
 * @throws {PeerDmaError} `ERR_UNSUPPORTED` for a bridge, `ERR_NO_IOMMU_GROUP`, `ERR_DEVICE_IN_USE` for what a process has
 *   through VFIO, `ERR_DEVICE_NEEDED` for what the host uses
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
  const direct = devicesBoundBy(plan).flatMap((device) => directRegionsOf(host, host.kernel, device)?.says ?? []);
  return [...needed.map(({ reason }) => reason), ...warnings, ...direct, ...describeUnboundMembers(host, plan)];
}

/** VFIO takes no bridges (Linux, drivers/vfio/pci/vfio_pci_core.c: `vfio_pci_core_register_device`). */
function checkAssignable(host: Host, { address, bridge, group }: PciFunction): void {
  if (bridge !== undefined) {
    throw new PeerDmaError('ERR_UNSUPPORTED', bridgeRefused(address), {
      device: address,
    });
  }
  if (group === undefined) {
    throw new PeerDmaError('ERR_NO_IOMMU_GROUP', withoutGroup(address, host.groups.size > 0), { device: address });
  }
}

/** To take a device from its user is to wait until the user closes it (Linux, drivers/vfio: `vfio_unregister_group_dev`). */
function checkNotOpen(machine: Machine, device: PciFunction): void {
  const virtual = device.virtualFunctions?.addresses ?? [];
  for (const address of [device.address, ...virtual]) {
    const found = machine.host.functions.get(address);
    const users = found === undefined ? [] : vfioUsers(machine, found);
    if (users.length === 0) continue;
    const what = address === device.address ? address : `${address}, a virtual function of ${device.address},`;
    throw new PeerDmaError(
      'ERR_DEVICE_IN_USE',
      `${what} or its group is open in ${users.join(', ')}: the kernel would wait until it is closed there. Close it first`,
      { device: address },
    );
  }
}

/** Devices that a plan binds to VFIO. */
function devicesBoundBy({ changes }: BindingPlan): PciFunction[] {
  return changes.filter(({ to }) => to !== undefined).map(({ device }) => device);
}

/** A group of which the host keeps a part can't be assigned: better said now. */
function describeUnboundMembers(host: Host, plan: BindingPlan): string[] {
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
    const state = `IOMMU group ${group} can't be assigned yet, since the host also has`;
    return [
      ...(pci === '' ? [] : [`${state} ${pci}: --group binds them too`]),
      ...(others === '' ? [] : [`${state} ${others}: unbind what is not a PCI device by hand`]),
    ];
  });
}
