/**
 * Plans a change of drivers: the new driver of each device, and the writes to /sys.
 */
import { PeerDmaError } from '../../errors.ts';
import { isChipset } from '../chipset.ts';
import { keepsGroupViable, isVfioDriver } from '../drivers.ts';
import { noGroupText } from '../iommu.ts';
import type { HostMachine, PciFunction } from '../model.ts';
import { DEVICES } from '../sys-files.ts';
import { functionAt, membersOf } from '../read-host.ts';

/** The default driver of `bind`. @internal */
export const VFIO_PCI = 'vfio-pci';

/** @internal */
export interface SysWrite {
  /** Path below /sys. */
  readonly path: string;
  readonly text: string;
}

/** A device that changes its driver. @internal */
export interface DriverChange {
  readonly device: PciFunction;
  /** The new driver; `undefined` for the driver that the kernel chooses. */
  readonly to: string | undefined;
  readonly writes: readonly SysWrite[];
}

/** @internal */
export interface BindingPlan {
  /** Kernel module to load first. */
  readonly module: string | undefined;
  readonly changes: readonly DriverChange[];
  /** Devices that already have the right driver. */
  readonly unchanged: readonly PciFunction[];
}

/**
 * Returns the devices of a command line, each once.
 *
 * @param wholeGroups whether to add all endpoints of their IOMMU groups. Bridges, and parts of the chipset without a
 *   host driver, are added only if they are named
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if a text is not an address, `ERR_DEVICE_NOT_FOUND`,
 *   `ERR_NO_IOMMU_GROUP` if a group is wanted of a device without one
 * @internal
 */
export function chosenDevices(host: HostMachine, texts: readonly string[], wholeGroups: boolean): PciFunction[] {
  const named = texts.map((text) => functionAt(host, text));
  const wanted = new Set(named);
  if (!wholeGroups) return [...wanted];
  const chosen = named.flatMap((device) => {
    const { address, group, noIommuGroup } = device;
    if (noIommuGroup !== undefined) return [device];
    if (group === undefined) {
      throw new PeerDmaError('ERR_NO_IOMMU_GROUP', noGroupText(address, host.groups.size > 0), { bdf: address });
    }
    const isNamed = (member: PciFunction): boolean => member.bridge === undefined && wanted.has(member);
    const endpoints = membersOf(host, group).filter((member) => isNamed(member) || !keepsDriver(member));
    return endpoints.length > 0 ? endpoints : [device];
  });
  return [...new Set(chosen)];
}

/** Whether a member keeps its driver. Without DMA it leaves the group viable (`iommu_group_claim_dma_owner`). */
function keepsDriver(member: PciFunction): boolean {
  const { bridge, driver } = member;
  return bridge !== undefined || (isChipset(member) && !isVfioDriver(driver) && keepsGroupViable(driver));
}

/**
 * Plans to bind devices to VFIO.
 *
 * @param driver `vfio-pci` or a variant of it; `undefined` for vfio-pci, except for devices that have a variant
 * @param isLoaded whether a driver is loaded
 * @internal
 */
export function planBind(
  devices: readonly PciFunction[],
  driver: string | undefined,
  isLoaded: (driver: string) => boolean,
): BindingPlan {
  const isDone = (device: PciFunction): boolean =>
    driver === undefined ? isVfioDriver(device.driver) : device.driver === driver;
  const to = driver ?? VFIO_PCI;
  const changes = devices
    .filter((device) => !isDone(device))
    .map((device) => ({
      device,
      to,
      writes: [overrideWrite(device.address, to), ...unbindWrites(device), probeWrite(device.address)],
    }));
  const module = changes.length > 0 && !isLoaded(to) ? to : undefined;
  return { module, changes, unchanged: devices.filter(isDone) };
}

/** Plans to unbind devices from VFIO, so that the kernel chooses their drivers. @internal */
export function planUnbind(devices: readonly PciFunction[]): BindingPlan {
  const isDone = ({ driver, driverOverride }: PciFunction): boolean =>
    !isVfioDriver(driver) && !isVfioDriver(driverOverride);
  const changes = devices
    .filter((device) => !isDone(device))
    .map((device) => ({
      device,
      to: undefined,
      writes: [overrideWrite(device.address, undefined), ...unbindWrites(device), probeWrite(device.address)],
    }));
  return { module: undefined, changes, unchanged: devices.filter(isDone) };
}

/** @param driver `undefined` to clear the override by an empty line (Linux, drivers/base/driver.c) @internal */
export function overrideWrite(address: string, driver: string | undefined): SysWrite {
  return { path: `${DEVICES}/${address}/driver_override`, text: `${driver ?? ''}\n` };
}

/** @internal */
export function driverWrite(driver: string, act: 'bind' | 'unbind', address: string): SysWrite {
  return { path: `bus/pci/drivers/${driver}/${act}`, text: `${address}\n` };
}

function unbindWrites({ driver, address }: PciFunction): SysWrite[] {
  return driver === undefined ? [] : [driverWrite(driver, 'unbind', address)];
}

function probeWrite(address: string): SysWrite {
  return { path: 'bus/pci/drivers_probe', text: `${address}\n` };
}
