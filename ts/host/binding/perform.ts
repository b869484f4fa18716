/**
 * Carries out a plan: all of it, or nothing.
 */
import { PeerDmaError, asError } from '../../errors.ts';
import { isVfioDriver } from '../drivers.ts';
import type { PciFunction } from '../model.ts';
import type { SysfsWriter } from './sysfs-writer.ts';
import { type BindingPlan, type DriverChange, type SysWrite, driverWrite, overrideWrite } from './plan.ts';

/** What has become of a device. @internal */
export interface Rebound {
  readonly device: PciFunction;
  /** The driver that has it now. */
  readonly driver: string | undefined;
}

/**
 * Gives devices to other drivers. Where one can't be given, those before go back to where they were.
 *
 * @throws {PeerDmaError} `ERR_PERMISSION`, `ERR_VFIO_UNAVAILABLE` where the module can't be loaded, `ERR_BIND_FAILED`;
 *   `ERR_ROLLBACK_FAILED` where not all could be given back: the message says how each device stands
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
    `the driver ${module} is not there, and "modprobe ${module}" says: ${problem}. Nothing was changed`,
  );
}

/** The kernel says nothing where no driver takes a device, nor where one tried and failed. */
function verifyDriver({ device: { address }, to }: DriverChange, writer: SysfsWriter): string | undefined {
  const driver = writer.driverOf(address);
  if (to !== undefined && driver !== to) {
    const instead = driver === undefined ? 'no driver has it now' : `${driver} has it now`;
    const variant = to === 'vfio-pci' ? '' : ` (${to} takes only devices that it was made for)`;
    throw new PeerDmaError(
      'ERR_BIND_FAILED',
      `${to} did not take ${address}, ${instead}${variant}: the end of dmesg says why`,
      { device: address },
    );
  }
  if (to === undefined && isVfioDriver(driver)) {
    throw new PeerDmaError(
      'ERR_BIND_FAILED',
      `${driver} took ${address} again: it was told to take all devices of its kind. Look for "vfio-pci ids=" in /etc/modprobe.d and on the kernel's command line`,
      { device: address },
    );
  }
  return driver;
}

/** Undoes what was begun, in reverse, and adds to the error how it went. */
function rollBack(error: PeerDmaError, begun: readonly DriverChange[], writer: SysfsWriter): PeerDmaError {
  const back: string[] = [];
  const stuck: string[] = [];
  for (const { device } of begun.toReversed()) {
    const { address, driver } = device;
    const problem = restoreDriver(device, writer);
    if (problem === undefined) back.push(`${address} (${driver ?? 'no driver'})`);
    else stuck.push(`${address} could not be given back to ${driver ?? 'no driver'}: ${problem}`);
  }
  const undone = back.length === 0 ? '' : `. As before: ${back.join(', ')}`;
  const { errno, syscall, device } = error;
  if (stuck.length === 0) {
    return new PeerDmaError(error.code, error.message + undone, { errno, syscall, device, cause: error.cause });
  }
  const text = `${error.message}${undone}. Not undone: ${stuck.join('; ')}`;
  return new PeerDmaError('ERR_ROLLBACK_FAILED', text, { errno, syscall, device, cause: error });
}

/**
 * Goes by how the device stands, not by what was written: a write that failed may have done its work.
 *
 * @returns what is in the way
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
      throw new PeerDmaError('ERR_PERMISSION', `only root may write to /sys/${path}: run it with sudo`, details);
    }
    if (errno === 'EROFS') {
      throw new PeerDmaError(
        'ERR_PERMISSION',
        `/sys can't be written to here, as in a container: run it on the host`,
        details,
      );
    }
    throw new PeerDmaError(
      'ERR_BIND_FAILED',
      `the kernel refused a write to /sys/${path} (${errno ?? message})`,
      details,
    );
  }
}
