/**
 * The one error class of the package.
 */
import { types } from 'node:util';
import type { AddressRange } from './address-range.ts';
import { valueText } from './value-text.ts';

/**
 * Every code a {@link PeerDmaError} can carry. Codes are stable; messages are not.
 *
 * `ERR_VA_IN_USE`, `ERR_GROUP_ATTACH`, `ERR_SET_IOMMU_FAILED` and `ERR_CONTAINER_EMPTY` are answers of the native core to this
 * package: they come as the `cause` of another error, or as the code in a {@link MappingStatus}.
 */
export type ErrorCode =
  // Arguments
  /** An argument is not of the kind, or not among the values, that the call takes. */
  | 'ERR_INVALID_ARGUMENT'
  /** A range has no bytes. */
  | 'ERR_EMPTY_RANGE'
  /** A range ends beyond the memory, file, region or address space that it is to lie in. */
  | 'ERR_OUT_OF_RANGE'
  /** An address, offset or length is not a multiple of the page, or of the width of the access. */
  | 'ERR_UNALIGNED'
  /** Something has some of these addresses already. */
  | 'ERR_OVERLAP'
  /** What the call is made on, or needs, was closed. */
  | 'ERR_CLOSED'
  /** The region was removed. */
  | 'ERR_REGION_REMOVED'
  // The package itself
  /** There is no native core for this operating system, processor or C library. */
  | 'ERR_UNSUPPORTED_PLATFORM'
  /** The package with the native core of this platform is not installed. */
  | 'ERR_NATIVE_CORE_MISSING'
  // Guest memory
  /** There is no memory at some of these guest-physical addresses. */
  | 'ERR_NOT_MAPPED'
  /** A target may still reach what was at some of these addresses: it would not unmap it. Closing that target ends it. */
  | 'ERR_RANGE_QUARANTINED'
  /** A change failed, and undoing it failed too: the message says what is not as it was. */
  | 'ERR_ROLLBACK_FAILED'
  // Host memory (native core)
  /** The system's page size is no power of two of at least 4096 bytes. */
  | 'ERR_PAGE_SIZE'
  /** The process has not as much address space in one piece, or may not have it (`RLIMIT_AS`). */
  | 'ERR_ADDRESS_SPACE_LIMIT'
  /** There are not as many huge pages of that size. */
  | 'ERR_HUGE_PAGES_UNAVAILABLE'
  /** The memory is not there: past the end of a truncated file, not writable, or a BAR that does not answer. */
  | 'ERR_MEMORY_FAULT'
  /** A target holds the memory that was to be unmapped or replaced in this process: the native core's safety net. */
  | 'ERR_VA_IN_USE'
  /** This process does not show the memory that a target needs, since an earlier change could not be undone. */
  | 'ERR_VA_NOT_MAPPED'
  /** Any other refusal of the kernel: `errno` and `syscall` say which. */
  | 'ERR_SYSTEM'
  // DMA targets
  /** The target maps memory by its place in this process, and was given none: it has to say `needsVa`. */
  | 'ERR_HOST_MEMORY_REQUIRED'
  /** The target maps files alone, and the memory is private. */
  | 'ERR_FILE_REQUIRED'
  /** The target has something mapped at some of these IOVAs (`EEXIST`). */
  | 'ERR_IOVA_OVERLAP'
  /** The IOMMU can't map these IOVAs: they are reserved, or beyond its width. */
  | 'ERR_IOVA_UNREACHABLE'
  /** The container, or this process, has as many mappings as it may (`dma_entry_limit`, `vm.max_map_count`). */
  | 'ERR_MAPPING_LIMIT'
  /** Pinning the memory would pass the limit of locked memory (`RLIMIT_MEMLOCK`). */
  | 'ERR_MEMLOCK_LIMIT'
  /** The target refused the mapping for another reason. */
  | 'ERR_MAP_FAILED'
  /** The target would not unmap, or not what was asked for: it may still reach that memory, which is quarantined. */
  | 'ERR_UNMAP_FAILED'
  /** The device was reset or switched off, and with iommufd the mapping of its BAR is void since. */
  | 'ERR_MAPPING_REVOKED'
  /** A simulated device's DMA went to what is not mapped for it, or may not be done. */
  | 'ERR_DMA_FAULT'
  // VFIO
  /** VFIO is not there: `/dev/vfio/vfio` can't be opened. */
  | 'ERR_VFIO_UNAVAILABLE'
  /** The kernel's VFIO has no type1v2 IOMMU for the device, or speaks another version. */
  | 'ERR_VFIO_UNSUPPORTED'
  /** iommufd is not there: `/dev/iommu` can't be opened. */
  | 'ERR_IOMMUFD_UNAVAILABLE'
  /** The kernel, the IOMMU or the device is not able to do it. */
  | 'ERR_UNSUPPORTED'
  /** This user may not open a file below `/dev`: the message names it. */
  | 'ERR_PERMISSION'
  /** There is no PCI function of that address. */
  | 'ERR_DEVICE_NOT_FOUND'
  /** The device is not bound to a driver of VFIO. */
  | 'ERR_DEVICE_NOT_BOUND'
  /** The kernel would not open the device. */
  | 'ERR_DEVICE_OPEN'
  /** The device needs a VF token and was given none, or another; or was given one and takes none. */
  | 'ERR_VF_TOKEN'
  /** The device is open or assigned already, or its memory is still mapped. */
  | 'ERR_DEVICE_IN_USE'
  /** The host uses the device itself, for a disk or the network, say: the message names what for. */
  | 'ERR_DEVICE_NEEDED'
  /** A device did not come to the driver that it was to have: the message says what was undone. */
  | 'ERR_BIND_FAILED'
  /** The kernel would not attach the device to an address space of iommufd. */
  | 'ERR_DEVICE_ATTACH'
  /** No IOMMU is on, or none is before the device. */
  | 'ERR_NO_IOMMU_GROUP'
  /** The file of the device's IOMMU group can't be opened. */
  | 'ERR_GROUP_OPEN'
  /** Another process, or another container manager, has the device or one of its IOMMU group. */
  | 'ERR_GROUP_BUSY'
  /** The kernel would not attach a group to a container. */
  | 'ERR_GROUP_ATTACH'
  /** The host uses other devices of the IOMMU group: the message names them. */
  | 'ERR_GROUP_NOT_VIABLE'
  /** The platform has no interrupt remapping, without which a device could forge interrupts. */
  | 'ERR_NO_INTERRUPT_REMAPPING'
  /** The kernel would not give a container its IOMMU. */
  | 'ERR_SET_IOMMU_FAILED'
  /** The container has no IOMMU: its last group is gone, such as with a device that was unplugged. */
  | 'ERR_CONTAINER_EMPTY'
  /** The kernel has said what makes no sense. */
  | 'ERR_BAD_KERNEL_DATA'
  /** The BAR does not answer: memory decode is off, or the device sleeps. */
  | 'ERR_BAR_DISABLED'
  /** The device has no region of that index, or none that can be mapped. */
  | 'ERR_NO_SUCH_REGION'
  /** The device can't be reset that way. */
  | 'ERR_RESET_UNSUPPORTED'
  /** The device has no such interrupt, or not as many. */
  | 'ERR_INTERRUPT_UNSUPPORTED'
  /** The kernel would not set up the interrupt. */
  | 'ERR_INTERRUPT_SETUP'
  // PCI
  /** The device's config space makes no sense, or it does not answer. */
  | 'ERR_BAD_CONFIG_SPACE';

/** What a {@link PeerDmaError} can say besides its message. */
export interface ErrorDetails {
  /** Name of the kernel's error, such as `EINVAL`. */
  readonly errno?: string | undefined;
  /** The system call that failed, such as `ioctl(VFIO_IOMMU_MAP_DMA)`. */
  readonly syscall?: string | undefined;
  /** Guest-physical addresses (for a DMA target: IOVAs) that the failure is about. */
  readonly range?: AddressRange | undefined;
  /** Name of the DMA target that failed. */
  readonly target?: string | undefined;
  /** PCI address of the device that failed. */
  readonly device?: string | undefined;
  /** What was thrown below, where this error tells of it in other words. */
  readonly cause?: unknown;
}

/** Every failure of this package. `code` is for programs, `message` for people. */
export class PeerDmaError extends Error {
  /** Always `PeerDmaError`. */
  override readonly name = 'PeerDmaError';
  /** What has failed, for programs: stable, unlike the message. */
  readonly code: ErrorCode;
  /** Name of the kernel's error, such as `EINVAL`, where the kernel refused. */
  declare readonly errno?: string;
  /** The system call that failed, such as `ioctl(VFIO_IOMMU_MAP_DMA)`, where one did. */
  declare readonly syscall?: string;
  /** Guest-physical addresses (for a DMA target: IOVAs) that the failure is about. */
  declare readonly range?: AddressRange;
  /** Name of the DMA target that failed. */
  declare readonly target?: string;
  /** PCI address of the device that failed. */
  declare readonly device?: string;

  /**
   * For a {@link DmaTarget} of your own, to say why it refuses. Nothing else needs to make one.
   *
   * @param message for people: what failed, and what to do about it
   */
  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    const { cause, errno, syscall, range, target, device } = readDetails(details);
    super(typeof message === 'string' ? message : valueText(message), cause === undefined ? undefined : { cause });
    this.code = code;
    if (errno !== undefined) this.errno = errno;
    if (syscall !== undefined) this.syscall = syscall;
    if (range !== undefined) this.range = range;
    if (target !== undefined) this.target = target;
    if (device !== undefined) this.device = device;
  }
}

/** None for what can't be read: what a target wants to report must not become another error. */
function readDetails(details: ErrorDetails): ErrorDetails {
  try {
    const { cause, errno, syscall, range, target, device } = details;
    return { cause, errno, syscall, range, target, device };
  } catch {
    return {};
  }
}

/** Whether it is an error, of any realm: Node and the native core create theirs in the main one. @internal */
export function isError(thrown: unknown): thrown is Error {
  return types.isNativeError(thrown) || thrown instanceof Error;
}

/**
 * What was thrown, as an `Error` that can be read: a target may throw anything, such as what throws when it is looked at.
 *
 * @internal
 */
export function asError(thrown: unknown): Error {
  try {
    if (!isError(thrown)) return new Error(String(thrown));
    const { message, code, errno, syscall, range, target, device } = thrown as Partial<PeerDmaError>;
    void [message, code, errno, syscall, range?.start, range?.end, target, device];
    return thrown;
  } catch {
    return new Error('something that is no error, and can not be told');
  }
}

/** @internal */
export function throwIf(problem: unknown): void {
  if (problem !== undefined) throw problem;
}
