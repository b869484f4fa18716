/**
 * Which device gets which driver, by which writes to /sys: plain data, made from what was read.
 */
import { PeerDmaError } from '../../errors.ts';
import { isChipset } from '../chipset.ts';
import { isHarmless, isVfioDriver } from '../drivers.ts';
import { withoutGroup } from '../iommu.ts';
import type { Host, PciFunction } from '../model.ts';
import { DEVICES } from '../pci-function.ts';
import { functionAt, membersOf } from '../read-host.ts';

/** What drivers are by default. @internal */
export const VFIO_PCI = 'vfio-pci';

/** @internal */
export interface SysWrite {
  /** Below /sys. */
  readonly path: string;
  readonly text: string;
}

/** A device that changes its driver. @internal */
export interface DriverChange {
  readonly device: PciFunction;
  /** The driver that has to have it then; `undefined`: whichever the kernel finds for it. */
  readonly to: string | undefined;
  readonly writes: readonly SysWrite[];
}

/** @internal */
export interface BindingPlan {
  /** A kernel module that is to be loaded before. */
  readonly module: string | undefined;
  readonly changes: readonly DriverChange[];
  /** Devices that are as they should be. */
  readonly unchanged: readonly PciFunction[];
}

/**
 * The devices of a command line, each once.
 *
 * @param wholeGroups with all endpoints of their IOMMU groups. Bridges and parts of the chipset that VFIO does not mind
 * stay as they are; a part of the chipset that is named does not
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_DEVICE_NOT_FOUND`, `ERR_NO_IOMMU_GROUP`
 * @internal
 */
export function chosenDevices(host: Host, texts: readonly string[], wholeGroups: boolean): PciFunction[] {
  const named = texts.map((text) => functionAt(host, text));
  const wanted = new Set(named);
  if (!wholeGroups) return [...wanted];
  const chosen = named.flatMap((device) => {
    const { address, group, noIommuGroup } = device;
    if (noIommuGroup !== undefined) return [device];
    if (group === undefined) {
      throw new PeerDmaError('ERR_NO_IOMMU_GROUP', withoutGroup(address, host.groups.size > 0), { device: address });
    }
    const isNamed = (member: PciFunction): boolean => member.bridge === undefined && wanted.has(member);
    const endpoints = membersOf(host, group).filter((member) => isNamed(member) || !staysInGroup(member));
    return endpoints.length > 0 ? endpoints : [device];
  });
  return [...new Set(chosen)];
}

/** Members without a driver, or with one that does no DMA, leave a group viable (`iommu_group_claim_dma_owner`). */
function staysInGroup(member: PciFunction): boolean {
  const { bridge, driver } = member;
  return bridge !== undefined || (isChipset(member) && !isVfioDriver(driver) && isHarmless(driver));
}

/**
 * How devices get to VFIO.
 *
 * @param driver `vfio-pci` or a variant of it; `undefined`: vfio-pci, but for those that a variant has already
 * @param isLoaded whether the driver is there
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

/** How devices get back from VFIO to the drivers that the kernel has for them. @internal */
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

/** @param driver `undefined`: none, for which the kernel takes an empty line (Linux, drivers/base/driver.c) @internal */
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
