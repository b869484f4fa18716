/**
 * The one error class of the package.
 */
import { types } from 'node:util';
import type { AddressRange } from './address-range.ts';
import { valueText } from './value-text.ts';

/**
 * The codes of {@link PeerDmaError}. Codes are stable; messages are not.
 *
 * The native core reports `ERR_VA_IN_USE`, `ERR_GROUP_ATTACH`, `ERR_SET_IOMMU_FAILED` and `ERR_CONTAINER_EMPTY` to this
 * package: callers get them as the `cause` of another error, or as the code in a {@link MappingStatus}.
 */
export type ErrorCode =
  // Arguments
  /** An argument has the wrong type, or a value that the call does not accept. */
  | 'ERR_INVALID_ARGUMENT'
  /** A range has no bytes. */
  | 'ERR_EMPTY_RANGE'
  /** A range passes the end of its memory, file, region or address space. */
  | 'ERR_OUT_OF_RANGE'
  /** An address, offset or length is not a multiple of the page, or of the width of the access. */
  | 'ERR_UNALIGNED'
  /** Some of these addresses are in use. */
  | 'ERR_OVERLAP'
  /** The object, or another that the call needs, is closed. */
  | 'ERR_CLOSED'
  /** The region was removed. */
  | 'ERR_REGION_REMOVED'
  // The package itself
  /** The native core does not exist for this operating system, processor or C library. */
  | 'ERR_UNSUPPORTED_PLATFORM'
  /** The package with the native core of this platform is not installed. */
  | 'ERR_NATIVE_CORE_MISSING'
  // Guest memory
  /** There is no memory at some of these guest-physical addresses. */
  | 'ERR_NOT_MAPPED'
  /** A target failed to unmap some of these addresses, and may still reach the memory. Close that target. */
  | 'ERR_RANGE_QUARANTINED'
  /** Some of these blocks of RAM are plugged already. */
  | 'ERR_ALREADY_PLUGGED'
  /** Some of these blocks of RAM are not plugged. */
  | 'ERR_NOT_PLUGGED'
  /** Blocks of RAM are unplugged, but the kernel could not discard their bytes. */
  | 'ERR_DISCARD_FAILED'
  /** Another mapping has the memory, whose bytes the call would discard. */
  | 'ERR_MEMORY_IN_USE'
  /** A change failed, and undoing it failed too: the message lists what could not be undone. */
  | 'ERR_ROLLBACK_FAILED'
  // Host memory (native core)
  /** The system's page size is not a power of two of at least 4096 bytes. */
  | 'ERR_PAGE_SIZE'
  /** The process has no free address range of that size, or is not allowed one (`RLIMIT_AS`). */
  | 'ERR_ADDRESS_SPACE_LIMIT'
  /** The system does not have enough free huge pages of that size. */
  | 'ERR_HUGE_PAGES_UNAVAILABLE'
  /** The memory cannot be accessed: a truncated file, read-only memory, or a BAR that is not decoded. */
  | 'ERR_MEMORY_FAULT'
  /** Memory of this process cannot be unmapped or replaced while a target has a lease of it. */
  | 'ERR_VA_IN_USE'
  /** Memory for a target is not mapped in this process, since an earlier change could not be undone. */
  | 'ERR_VA_NOT_MAPPED'
  /** The process at the other end of a socket has closed it, or has ended. */
  | 'ERR_PEER_CLOSED'
  /** Another error of the kernel: see `errno` and `syscall`. */
  | 'ERR_SYSTEM'
  // DMA targets
  /** The target maps memory by host virtual address, and has none: set `needsVa`. */
  | 'ERR_HOST_MEMORY_REQUIRED'
  /** The target maps only files, or only those that other processes can map; the memory is of none. */
  | 'ERR_FILE_REQUIRED'
  /** The target has something mapped at some of these IOVAs (`EEXIST`). */
  | 'ERR_IOVA_OVERLAP'
  /** The IOMMU cannot map these IOVAs: they are reserved, or beyond its width. */
  | 'ERR_IOVA_UNREACHABLE'
  /** A limit of mappings is reached: `dma_entry_limit`, `vm.max_map_count`, slots of KVM or a back end. */
  | 'ERR_MAPPING_LIMIT'
  /** The memory cannot be pinned: it exceeds `RLIMIT_MEMLOCK`, or the kernel has no memory for it. */
  | 'ERR_MEMLOCK_LIMIT'
  /** The target refused the mapping for another reason. */
  | 'ERR_MAP_FAILED'
  /** The target failed to unmap exactly the range: it may still reach the memory, which is quarantined. */
  | 'ERR_UNMAP_FAILED'
  /** The device was reset or switched off, which revokes the mappings of its BARs in iommufd. */
  | 'ERR_MAPPING_REVOKED'
  /** A back end in another process did not reply in time, or did not end its connection. */
  | 'ERR_TIMEOUT'
  /** A back end has ended its connection, or its process has ended. */
  | 'ERR_DISCONNECTED'
  /** A back end sent a reply that its protocol does not allow. */
  | 'ERR_INVALID_REPLY'
  /** A back end refused a request. */
  | 'ERR_REQUEST_REFUSED'
  /** A simulated device made a DMA access to an unmapped address, or one that is not allowed. */
  | 'ERR_DMA_FAULT'
  // VFIO
  /** `/dev/vfio/vfio` cannot be opened. */
  | 'ERR_VFIO_UNAVAILABLE'
  /** The kernel's VFIO has no type1v2 IOMMU for the device, or another API version. */
  | 'ERR_VFIO_UNSUPPORTED'
  /** `/dev/iommu` cannot be opened. */
  | 'ERR_IOMMUFD_UNAVAILABLE'
  /** The kernel, the IOMMU, the device or the back end does not support it. */
  | 'ERR_UNSUPPORTED'
  /** This user may not open a file below `/dev`: the message names it. */
  | 'ERR_PERMISSION'
  /** No PCI function has that address. */
  | 'ERR_DEVICE_NOT_FOUND'
  /** The device is not bound to a driver of VFIO. */
  | 'ERR_DEVICE_NOT_BOUND'
  /** The kernel refused to open the device. */
  | 'ERR_DEVICE_OPEN'
  /** The VF token is missing or wrong, or the device does not take one. */
  | 'ERR_VF_TOKEN'
  /** The device is open or assigned already, or its memory is still mapped. */
  | 'ERR_DEVICE_IN_USE'
  /** The host uses the device, for example for a disk or the network: the message names the use. */
  | 'ERR_DEVICE_NEEDED'
  /** A device could not be bound to its driver: the message lists what was undone. */
  | 'ERR_BIND_FAILED'
  /** The kernel refused to attach the device to an address space of iommufd. */
  | 'ERR_DEVICE_ATTACH'
  /** No IOMMU is enabled, or none translates for the device. */
  | 'ERR_NO_IOMMU_GROUP'
  /** The file of the device's IOMMU group cannot be opened. */
  | 'ERR_GROUP_OPEN'
  /** Another process, or another container manager, has the device or one of its IOMMU group. */
  | 'ERR_GROUP_BUSY'
  /** The kernel refused to attach a group to a container. */
  | 'ERR_GROUP_ATTACH'
  /** The host uses other devices of the IOMMU group: the message names them. */
  | 'ERR_GROUP_NOT_VIABLE'
  /** The platform has no interrupt remapping, without which a device could forge interrupts. */
  | 'ERR_NO_INTERRUPT_REMAPPING'
  /** The kernel refused to set the IOMMU of a container. */
  | 'ERR_SET_IOMMU_FAILED'
  /** The container has no IOMMU since its last group was removed, for example with an unplugged device. */
  | 'ERR_CONTAINER_EMPTY'
  /** The kernel returned inconsistent data. */
  | 'ERR_BAD_KERNEL_DATA'
  /** The BAR is not decoded: memory decode is off, or the device is in a low-power state. */
  | 'ERR_BAR_DISABLED'
  /** The device has no region of that index, or none that can be mapped. */
  | 'ERR_NO_SUCH_REGION'
  /** The device cannot be reset that way. */
  | 'ERR_RESET_UNSUPPORTED'
  /** The device did not change its migration state, or its state does not allow the call. */
  | 'ERR_MIGRATION_STATE'
  /** The device rejected migration data, or failed to return it. */
  | 'ERR_MIGRATION_DATA'
  /** The device has no such interrupt, or not as many. */
  | 'ERR_INTERRUPT_UNSUPPORTED'
  /** The kernel refused to set up the interrupt. */
  | 'ERR_INTERRUPT_SETUP'
  // KVM
  /** `/dev/kvm` cannot be opened. */
  | 'ERR_KVM_UNAVAILABLE'
  /** The kernel's KVM lacks a feature that a virtual machine requires: the message names it. */
  | 'ERR_KVM_UNSUPPORTED'
  /** A virtual processor executes the guest. Pause the virtual machine first. */
  | 'ERR_CPU_RUNNING'
  /** A virtual processor cannot execute the guest, or the handler of its access failed. */
  | 'ERR_CPU_FAILED'
  // PCI
  /** The device's config space is inconsistent, or the device does not respond. */
  | 'ERR_BAD_CONFIG_SPACE';

/** The details of a {@link PeerDmaError}. */
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
  readonly bdf?: string | undefined;
  /** The error that caused this one. */
  readonly cause?: unknown;
}

/** The error class of this package. `code` is for programs, `message` for people. */
export class PeerDmaError extends Error {
  /** Always `PeerDmaError`. */
  override readonly name = 'PeerDmaError';
  /** The kind of failure; stable, unlike the message. */
  readonly code: ErrorCode;
  /** Name of the kernel's error, such as `EINVAL`, if the kernel refused. */
  declare readonly errno?: string;
  /** The system call that failed, such as `ioctl(VFIO_IOMMU_MAP_DMA)`, if one did. */
  declare readonly syscall?: string;
  /** Guest-physical addresses (for a DMA target: IOVAs) that the failure is about. */
  declare readonly range?: AddressRange;
  /** Name of the DMA target that failed. */
  declare readonly target?: string;
  /** PCI address of the device that failed. */
  declare readonly bdf?: string;

  /**
   * Creates an error, for a {@link DmaTarget} of your own that refuses a call.
   *
   * @param message what failed, and what to do about it
   */
  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    const { cause, errno, syscall, range, target, bdf } = readDetails(details);
    super(typeof message === 'string' ? message : valueText(message), cause === undefined ? undefined : { cause });
    this.code = code;
    if (errno !== undefined) this.errno = errno;
    if (syscall !== undefined) this.syscall = syscall;
    if (range !== undefined) this.range = range;
    if (target !== undefined) this.target = target;
    if (bdf !== undefined) this.bdf = bdf;
  }
}

/** Empty if the details cannot be read: the error of a target must not be replaced by another. */
function readDetails(details: ErrorDetails): ErrorDetails {
  try {
    const { cause, errno, syscall, range, target, bdf } = details;
    return { cause, errno, syscall, range, target, bdf };
  } catch {
    return {};
  }
}

/** Whether it is an error, of any realm. Node and the native core create theirs in the main one. @internal */
export function isError(thrown: unknown): thrown is Error {
  return types.isNativeError(thrown) || thrown instanceof Error;
}

/**
 * The thrown value as an `Error` whose properties can be read. A target may throw any value, also an object whose
 * getters throw.
 *
 * @internal
 */
export function asError(thrown: unknown): Error {
  try {
    if (!isError(thrown)) return new Error(String(thrown));
    const { message, code, errno, syscall, range, target, bdf } = thrown as Partial<PeerDmaError>;
    void [message, code, errno, syscall, range?.start, range?.end, target, bdf];
    return thrown;
  } catch {
    return new Error('a value that is not an error and has no text');
  }
}

/** @internal */
export function throwIf(problem: unknown): void {
  if (problem !== undefined) throw problem;
}

/** Throws the only error, or one with the texts of all and the code of the first. @internal */
export function throwAll(errors: readonly Error[]): void {
  const [first] = errors;
  if (first === undefined) return;
  if (errors.length === 1) throw first;
  const { code = 'ERR_SYSTEM', errno, syscall, bdf } = first instanceof PeerDmaError ? first : {};
  const texts = new Set(errors.map(({ message }) => message));
  throw new PeerDmaError(code, [...texts].join('; '), { errno, syscall, bdf, cause: new AggregateError(errors) });
}
