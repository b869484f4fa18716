/**
 * The errors of opening a device. Each names the device and the remedy.
 */
import { type ErrorCode, PeerDmaError } from '../errors.ts';
import { isPciAddress } from '../host/address.ts';
import { blockersOf } from '../host/drivers.ts';
import { keptByFirmware } from '../host/direct-regions.ts';
import { type ReservedIovaRange, noGroupText } from '../host/iommu.ts';
import { listed } from '../host/listed.ts';
import type { PciDevice } from './sysfs.ts';
import { type TokenFacts, tokenDenied, tokenUnwanted } from './vf-token.ts';

/** Facts from /sys that explain why the kernel rejects a device. @internal */
export interface RefusalFacts {
  readonly token: TokenFacts;
  /** Number of its IOMMU group. */
  readonly group: number | undefined;
  /** Ranges for which the firmware demands a 1:1 mapping for the group; `undefined` if not known. */
  readonly directRegions: readonly Pick<ReservedIovaRange, 'start' | 'end'>[] | undefined;
}

/** @internal */
export function noIommuGroup(bdf: string, iommuIsOn: boolean): PeerDmaError {
  return new PeerDmaError('ERR_NO_IOMMU_GROUP', noGroupText(bdf, iommuIsOn), { bdf });
}

/** @internal */
export function unknownGroup(bdf: string): PeerDmaError {
  const text = `${bdf}: opening by descriptors failed: /sys does not have its IOMMU group. Pass "iommuGroup".`;
  return new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf });
}

/** The error of a descriptor of the caller. @param option through which it was passed @internal */
export function descriptorRefused(option: string, error: PeerDmaError, bdf?: string): PeerDmaError {
  const subject = `"${option}"${bdf === undefined ? '' : ` of ${bdf}`}: taking the descriptor failed`;
  switch (error.code) {
    case 'ERR_INVALID_ARGUMENT':
      return new PeerDmaError(error.code, `${subject}: ${error.message}`, { bdf, cause: error });
    case 'ERR_DEVICE_IN_USE': {
      const remedy = `Pass one that was only opened.`;
      return new PeerDmaError(error.code, `${subject}: ${error.message}. ${remedy}`, { bdf, cause: error });
    }
    default:
      return error;
  }
}

/** @internal */
export function notBound({ bdf, driver }: PciDevice): PeerDmaError {
  return new PeerDmaError(
    'ERR_DEVICE_NOT_BOUND',
    `${bdf} is ${driver === undefined ? 'bound to no driver' : `in use by the driver ${driver}`}: ` +
      `bind it to vfio-pci (sudo npx peerdma bind ${bdf})`,
    { bdf },
  );
}

/** @internal */
export function notViable(bdf: string, group: number, members: readonly PciDevice[]): PeerDmaError {
  const blockers = blockersOf(members);
  return groupNotViable(bdf, group, listed(blockers, blockers.length, nameOfBlocker));
}

/** @param blockers names of the members that the host uses @internal */
export function groupNotViable(bdf: string, group: number, blockers: string): PeerDmaError {
  const users = `devices that the host uses: ${blockers || 'none that sysfs names'}`;
  const bind = `Bind them to vfio-pci too (sudo npx peerdma bind --group ${bdf})`;
  const remedy = `${bind}, unbind them, or move the card to another slot`;
  return new PeerDmaError(
    'ERR_GROUP_NOT_VIABLE',
    `${bdf} shares IOMMU group ${group} with ${users}. ${remedy}: a group is assigned as a whole`,
    { bdf },
  );
}

/** @internal */
export function nameOfBlocker({ bdf, driver }: Pick<PciDevice, 'bdf' | 'driver'>): string {
  return `${bdf} (driver ${driver}${isPciAddress(bdf) ? '' : '; not a PCI device, so it can only be unbound'})`;
}

/** @internal */
export function containerUnavailable(error: PeerDmaError, isHanded = false): PeerDmaError {
  const orPass = isHanded ? ', or pass the descriptor of an open one as "container"' : '';
  if (error.errno === 'EACCES' || error.errno === 'EPERM') {
    return renamed(
      'ERR_PERMISSION',
      error,
      `this user may not open /dev/vfio/vfio: give it read and write access, or run as root${orPass}`,
    );
  }
  if (error.errno !== 'ENOENT' && error.errno !== 'ENODEV' && error.errno !== 'ENXIO') return error;
  return renamed(
    'ERR_VFIO_UNAVAILABLE',
    error,
    `VFIO is not available. Load it with "modprobe vfio-pci", in a container also pass in /dev/vfio${orPass}`,
  );
}

/** @internal */
export function groupUnavailable(bdf: string, group: number, error: PeerDmaError): PeerDmaError {
  const path = `/dev/vfio/${group}`;
  switch (error.errno) {
    case 'EACCES':
    case 'EPERM':
      return renamed(
        'ERR_PERMISSION',
        error,
        `this user may not open ${path}, the group of ${bdf}: give it read and write access (chown, or a udev rule)`,
        bdf,
      );
    case 'EBUSY':
      return renamed(
        'ERR_GROUP_BUSY',
        error,
        `group ${group} of ${bdf} is open already: another process or container manager has it. Close it there`,
        bdf,
      );
    case 'ENOENT':
      return renamed(
        'ERR_GROUP_OPEN',
        error,
        `there is no ${path} for ${bdf}: load VFIO with "modprobe vfio-pci", in a container also pass in ${path}`,
        bdf,
      );
    default:
      return renamed('ERR_GROUP_OPEN', error, `cannot open ${path}, the group of ${bdf}: dmesg has the reason`, bdf);
  }
}

/** @param facts `undefined` if nothing is known @internal */
export function iommuRefused(bdf: string, error: PeerDmaError, facts?: RefusalFacts): PeerDmaError {
  // Before Linux 6.6 EPERM (`intel_iommu_attach_device`), later EINVAL (`__iommu_device_set_domain`).
  const kept = error.errno === 'EPERM' || error.errno === 'EINVAL' ? refusedForFirmware(bdf, error, facts) : undefined;
  if (kept !== undefined) return kept;
  if (error.errno === 'EPERM') return noInterruptRemapping(bdf, error, 'vfio_iommu_type1', facts);
  return renamed(
    'ERR_VFIO_UNSUPPORTED',
    error,
    `the kernel refused an IOMMU of type1v2 for ${bdf}: dmesg has the reason, and whether an IOMMU is on` +
      (error.errno === 'EINVAL' ? orFirmware(facts) : ''),
    bdf,
  );
}

/** @internal */
export function noMemoryToAttach(bdf: string, error: PeerDmaError): PeerDmaError {
  const text = `${bdf} cannot be attached to an address space: the kernel has no memory. Free memory and open it again`;
  return renamed('ERR_DEVICE_ATTACH', error, text, bdf);
}

/** @internal */
export function iommufdUnavailable(error: PeerDmaError, isHanded = false): PeerDmaError {
  const orPass = isHanded
    ? ', or pass the descriptor of an open one: new VfioContainerManager(memory, { iommufd })'
    : '';
  if (error.errno === 'EACCES' || error.errno === 'EPERM') {
    return renamed(
      'ERR_PERMISSION',
      error,
      `this user may not open /dev/iommu: give it read and write access, or run as root${orPass}`,
    );
  }
  const remedy = (again: string): string =>
    'iommufd needs Linux 6.2 with CONFIG_IOMMUFD ("modprobe iommufd"), ' +
    `in a container also pass in /dev/iommu${again}${orPass}`;
  switch (error.errno) {
    case 'ENOENT':
      return renamed('ERR_IOMMUFD_UNAVAILABLE', error, `there is no /dev/iommu: ${remedy('')}`);
    // The file has the number of a device without a driver (Linux, `misc_open` and `chrdev_open`).
    case 'ENODEV':
    case 'ENXIO':
      return renamed('ERR_IOMMUFD_UNAVAILABLE', error, `no driver serves /dev/iommu: ${remedy(' again')}`);
    default:
      return error;
  }
}

/** @internal */
export function noDeviceFile(bdf: string): PeerDmaError {
  return new PeerDmaError(
    'ERR_UNSUPPORTED',
    `${bdf} has no file below /dev/vfio/devices, which iommufd requires: that needs Linux 6.6 with ` +
      "CONFIG_VFIO_DEVICE_CDEV. Or choose the back end 'type1'",
    { bdf },
  );
}

/** @internal */
export function mapsNoFiles(): PeerDmaError {
  return new PeerDmaError('ERR_UNSUPPORTED', 'this kernel’s iommufd maps no files (Linux 6.13 and later do)');
}

/** @internal */
export const NO_DMA_BUFS = 'this kernel does not export BARs as dma-bufs (Linux 6.19 and later do)';

/** @internal */
export function noDmaBufs(bdf: string, error: PeerDmaError): PeerDmaError {
  const why = error.errno === 'ENOTTY' ? NO_DMA_BUFS : `the driver of ${bdf} does not export its BARs as dma-bufs`;
  return renamed('ERR_UNSUPPORTED', error, `${why}, so no other device could reach them`, bdf);
}

/**
 * The error of a device file that could not be opened or bound.
 *
 * @param number that of its file; `undefined` if another process has opened it
 * @param members of its group
 * @param facts `undefined` if nothing is known
 * @internal
 */
export function deviceFileRefused(
  bdf: string,
  number: number | undefined,
  error: PeerDmaError,
  group: number,
  members: readonly PciDevice[],
  facts?: RefusalFacts,
): PeerDmaError {
  const path = `/dev/vfio/devices/vfio${number}`;
  const binding = error.syscall?.includes('BIND') === true;
  switch (error.errno) {
    case 'EACCES':
      if (binding) return deviceRefused(bdf, error, facts);
      return renamed(
        'ERR_PERMISSION',
        error,
        `this user may not open ${path}, the file of ${bdf}: give it read and write access (chown, or a udev rule)`,
        bdf,
      );
    case 'ENOENT':
      return renamed(
        'ERR_DEVICE_OPEN',
        error,
        `${path} of ${bdf} does not exist, but /sys has it. In a container also pass in ${path}`,
        bdf,
      );
    case 'EPERM': // the group has another owner, or no interrupt remapping (Linux `iommufd_device_bind`)
      if (!binding) return deviceRefused(bdf, error, facts);
      if (members.length === 0) return ownerOrRemapping(bdf, group, error);
      if (blockersOf(members).length > 0) return notViable(bdf, group, members);
      return members.filter((member) => isPciAddress(member.bdf)).length > 1
        ? groupTaken(bdf, group, members, error)
        : noInterruptRemapping(bdf, error, 'iommufd', facts);
    case 'EBUSY':
      return busy(bdf, group, error);
    case 'EINVAL':
      return binding ? bindingRefused(bdf, group, error, facts) : deviceRefused(bdf, error, facts);
    default:
      return deviceRefused(bdf, error, facts);
  }
}

/** The error if the members of the group are not known. */
function ownerOrRemapping(bdf: string, group: number, error: PeerDmaError): PeerDmaError {
  const causes = `a driver or another process uses a device of group ${group}, or interrupts are not remapped`;
  return renamed('ERR_DEVICE_OPEN', error, `the kernel refused to bind ${bdf}: ${causes}; dmesg has the reason`, bdf);
}

/** `EINVAL` has four causes, which only the facts from /sys distinguish. */
function bindingRefused(bdf: string, group: number, error: PeerDmaError, facts?: RefusalFacts): PeerDmaError {
  const known = tokenNotTaken(bdf, error, facts) ?? refusedForFirmware(bdf, error, facts);
  if (known !== undefined) return known;
  if (facts?.token.given === true) {
    const text =
      `the kernel refused to bind ${bdf} with a VF token: iommufd accepts tokens since Linux 6.17 (the back end ` +
      "'type1' accepts them on older kernels too), or the device is already open";
    return renamed('ERR_UNSUPPORTED', error, text, bdf);
  }
  // Its file is open a second time (`vfio_df_open`).
  const others = openAlready(bdf, group, ['another process, or another container manager,']);
  return renamed('ERR_GROUP_BUSY', error, `${others}${orFirmware(facts)}`, bdf);
}

function busy(bdf: string, group: number, error: PeerDmaError): PeerDmaError {
  return renamed(
    'ERR_GROUP_BUSY',
    error,
    openAlready(bdf, group, ['another process, or another container manager,']),
    bdf,
  );
}

/** @param users the programs that have it open, at least one @internal */
export function openAlready(bdf: string, group: number, users: readonly string[]): string {
  const holders = `${users.join(' and ')} ${users.length === 1 ? 'has' : 'have'} it`;
  return `${bdf} or its group ${group} is open already: ${holders}. Close it there`;
}

/** The error if sysfs shows no cause. Another process has a device of the group, or interrupt remapping is missing. */
function groupTaken(bdf: string, group: number, members: readonly PciDevice[], error: PeerDmaError): PeerDmaError {
  const others = members.map((member) => member.bdf).filter((each) => each !== bdf && isPciAddress(each));
  return renamed(
    'ERR_GROUP_BUSY',
    error,
    `another process has ${others.join(' or ')}, which ${bdf} shares IOMMU group ${group} with; ` +
      'or the platform has no interrupt remapping, which dmesg reports',
    bdf,
  );
}

/** @param facts `undefined` if nothing is known @internal */
export function deviceRefused(bdf: string, error: PeerDmaError, facts?: RefusalFacts): PeerDmaError {
  const asked = error.syscall?.startsWith('ioctl') === true;
  if (asked && error.errno === 'EACCES') return renamed('ERR_VF_TOKEN', error, tokenDenied(bdf, facts?.token), bdf);
  const notTaken = asked && error.errno === 'EINVAL' ? tokenNotTaken(bdf, error, facts) : undefined;
  if (notTaken !== undefined) return notTaken;
  return renamed('ERR_DEVICE_OPEN', error, `the kernel refused to open ${bdf}: dmesg has the reason`, bdf);
}

function tokenNotTaken(bdf: string, error: PeerDmaError, facts: RefusalFacts | undefined): PeerDmaError | undefined {
  const unwanted = tokenUnwanted(bdf, facts?.token);
  return unwanted === undefined ? undefined : renamed('ERR_VF_TOKEN', error, unwanted, bdf);
}

const RESERVED_REGIONS = '/sys/kernel/iommu_groups/*/reserved_regions has it as "direct"';

/** Returns `undefined` if the firmware is not known to demand a 1:1 mapping for the device. */
function refusedForFirmware(
  bdf: string,
  error: PeerDmaError,
  facts: RefusalFacts | undefined,
): PeerDmaError | undefined {
  const ranges = facts?.directRegions ?? [];
  if (ranges.length === 0) return undefined;
  return renamed('ERR_UNSUPPORTED', error, keptByFirmware({ address: bdf, group: facts?.group }, ranges), bdf);
}

/** Adds the firmware as a possible cause with the same errno, unless the facts exclude it. */
function orFirmware(facts: RefusalFacts | undefined): string {
  if (facts?.directRegions !== undefined) return '';
  const cause = 'the firmware demands a 1:1 mapping for the device (RMRR, IVMD), which VFIO does not make';
  return `; or ${cause}: ${RESERVED_REGIONS}`;
}

function noInterruptRemapping(bdf: string, error: PeerDmaError, module: string, facts?: RefusalFacts): PeerDmaError {
  const text = withoutRemapping(`the platform of ${bdf}`, module);
  return renamed('ERR_NO_INTERRUPT_REMAPPING', error, `${text}${orFirmware(facts)}`, bdf);
}

/** @param module the module whose parameter allows devices without it @internal */
export function withoutRemapping(platform: string, module: string): string {
  const reason = `${platform} has no interrupt remapping, so an assigned device could forge interrupts`;
  const remedy = 'Turn it on in the firmware (x2APIC, VT-d), or accept the risk';
  return `${reason}. ${remedy}: modprobe ${module} allow_unsafe_interrupts=1`;
}

function renamed(code: ErrorCode, error: PeerDmaError, text: string, bdf?: string): PeerDmaError {
  const { errno, syscall } = error;
  const response = [errno, syscall && `from ${syscall}`].filter(Boolean).join(' ');
  return new PeerDmaError(code, `${text} (${response || error.message})`, { errno, syscall, bdf, cause: error });
}
