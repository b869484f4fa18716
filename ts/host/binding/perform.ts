/**
 * Carries out a binding plan completely or not at all.
 */
import { PeerDmaError, asError } from '../../errors.ts';
import { isVfioDriver } from '../drivers.ts';
import type { PciFunction } from '../model.ts';
import type { SysfsWriter } from './sysfs-writer.ts';
import { type BindingPlan, type DriverChange, type SysWrite, driverWrite, overrideWrite } from './plan.ts';

/** The result for one device. @internal */
export interface Rebound {
  readonly device: PciFunction;
  /** The driver that the device has now. */
  readonly driver: string | undefined;
}

/**
 * Binds devices to other drivers. If one fails, restores the drivers of those before.
 *
 * @throws {PeerDmaError} `ERR_PERMISSION` if writes are denied, `ERR_VFIO_UNAVAILABLE` if the module cannot be loaded,
 *   `ERR_BIND_FAILED` if a driver or write fails, `ERR_ROLLBACK_FAILED` if a driver could not be restored; the message
 *   reports the state of each device
 * @internal
 */
export function perform({ module, changes }: BindingPlan, writer: SysfsWriter): Rebound[] {
  const [first] = changes[0]?.writes ?? [];
  if (first === undefined) return [];
  withSysfsErrors(first.path, () => writer.tryAccess(first.path));
  if (module !== undefined) load(module, writer);
  const begun: DriverChange[] = [];
  try {
    return changes.map((change) => {
      begun.push(change);
      for (const write of change.writes) withSysfsErrors(write.path, () => writer.write(write));
      return { device: change.device, driver: verifyDriver(change, writer) };
    });
  } catch (error) {
    if (!(error instanceof PeerDmaError)) throw error;
    throw rollBack(error, begun, writer);
  }
}

function load(module: string, writer: SysfsWriter): void {
  const problem = writer.loadModule(module);
  if (problem === undefined) return;
  throw new PeerDmaError(
    'ERR_VFIO_UNAVAILABLE',
    `the driver ${module} is not loaded, and "modprobe ${module}" failed: ${problem}. Nothing was changed`,
  );
}

/** Reads the driver back: the kernel reports no error if no driver takes a device or its probe fails. */
function verifyDriver({ device: { address }, to }: DriverChange, writer: SysfsWriter): string | undefined {
  const driver = writer.driverOf(address);
  if (to !== undefined && driver !== to) {
    const instead = driver === undefined ? 'it has no driver now' : `${driver} has it now`;
    const variant = to === 'vfio-pci' ? '' : ` (${to} supports only certain devices)`;
    throw new PeerDmaError(
      'ERR_BIND_FAILED',
      `${address}: binding to ${to} failed: ${instead}${variant}. Read the end of dmesg for the reason`,
      { bdf: address },
    );
  }
  if (to === undefined && isVfioDriver(driver)) {
    throw new PeerDmaError(
      'ERR_BIND_FAILED',
      `${address}: unbinding failed: ${driver} took it again, since it is set to take all devices of its kind. Remove "vfio-pci ids=" from /etc/modprobe.d or the kernel's command line`,
      { bdf: address },
    );
  }
  return driver;
}

/** Undoes the started changes in reverse order. Returns the error with the result of the rollback added. */
function rollBack(error: PeerDmaError, begun: readonly DriverChange[], writer: SysfsWriter): PeerDmaError {
  const back: string[] = [];
  const notRestored: string[] = [];
  for (const { device } of begun.toReversed()) {
    const { address, driver } = device;
    const problem = restoreDriver(device, writer);
    if (problem === undefined) back.push(`${address} (${driver ?? 'no driver'})`);
    else notRestored.push(`${address} (${driver ?? 'no driver'}): ${problem}`);
  }
  const undone = back.length === 0 ? '' : `. Restored: ${back.join(', ')}`;
  const { errno, syscall, bdf } = error;
  if (notRestored.length === 0) {
    return new PeerDmaError(error.code, error.message + undone, { errno, syscall, bdf, cause: error.cause });
  }
  const text = `${error.message}${undone}. Not restored: ${notRestored.join('; ')}`;
  return new PeerDmaError('ERR_ROLLBACK_FAILED', text, { errno, syscall, bdf, cause: error });
}

/**
 * Restores driver and override of a device. Compares with its current state: a failed write may have taken effect.
 *
 * @returns the problem, or `undefined` if the device has its old driver
 */
function restoreDriver({ address, driver, driverOverride }: PciFunction, writer: SysfsWriter): string | undefined {
  try {
    const write = (each: SysWrite): void => withSysfsErrors(each.path, () => writer.write(each));
    if (writer.overrideOf(address) !== driverOverride) write(overrideWrite(address, driverOverride));
    const now = writer.driverOf(address);
    if (now !== driver && now !== undefined) write(driverWrite(now, 'unbind', address));
    if (now !== driver && driver !== undefined) write(driverWrite(driver, 'bind', address));
    const after = writer.driverOf(address);
    return after === driver ? undefined : `${after ?? 'no driver'} has it`;
  } catch (error) {
    return asError(error).message;
  }
}

function withSysfsErrors(path: string, act: () => void): void {
  try {
    act();
  } catch (thrown) {
    const { code: errno, message }: NodeJS.ErrnoException = asError(thrown);
    const details = { errno, syscall: `write(/sys/${path})`, cause: thrown };
    if (errno === 'EACCES' || errno === 'EPERM') {
      throw new PeerDmaError(
        'ERR_PERMISSION',
        `/sys/${path}: write failed: only root can write to it (${errno}). Run the command with sudo`,
        details,
      );
    }
    if (errno === 'EROFS') {
      throw new PeerDmaError(
        'ERR_PERMISSION',
        `/sys/${path}: write failed: /sys is read-only here, as in a container (${errno}). Run the command on the host`,
        details,
      );
    }
    throw new PeerDmaError(
      'ERR_BIND_FAILED',
      `/sys/${path}: write failed: the kernel rejected it (${errno ?? message})`,
      details,
    );
  }
}
