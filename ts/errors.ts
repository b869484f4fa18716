/**
 * The one error class of the package.
 */
import type { AddressRange } from './address-range.ts';

/** Every code a {@link PeerDmaError} can carry. Codes are stable; messages are not. */
export type ErrorCode =
  // Arguments
  | 'ERR_INVALID_ARGUMENT'
  | 'ERR_EMPTY_RANGE'
  | 'ERR_OUT_OF_RANGE'
  | 'ERR_UNALIGNED'
  | 'ERR_OVERLAP'
  | 'ERR_CLOSED'
  | 'ERR_REGION_REMOVED'
  // The package itself
  | 'ERR_UNSUPPORTED_PLATFORM'
  | 'ERR_NATIVE_CORE_MISSING'
  // Guest memory
  | 'ERR_NOT_MAPPED'
  | 'ERR_RANGE_QUARANTINED'
  | 'ERR_ROLLBACK_FAILED'
  // Host memory (native core)
  | 'ERR_PAGE_SIZE'
  | 'ERR_ADDRESS_SPACE_LIMIT'
  | 'ERR_HUGE_PAGES_UNAVAILABLE'
  | 'ERR_MEMORY_FAULT'
  | 'ERR_VA_IN_USE'
  | 'ERR_VA_NOT_MAPPED'
  | 'ERR_SYSTEM'
  // DMA targets
  | 'ERR_HOST_MEMORY_REQUIRED'
  | 'ERR_FILE_REQUIRED'
  | 'ERR_IOVA_OVERLAP'
  | 'ERR_IOVA_UNREACHABLE'
  | 'ERR_MAPPING_LIMIT'
  | 'ERR_MEMLOCK_LIMIT'
  | 'ERR_MAP_FAILED'
  | 'ERR_UNMAP_FAILED'
  | 'ERR_MAPPING_REVOKED'
  | 'ERR_DMA_FAULT'
  // VFIO
  | 'ERR_VFIO_UNAVAILABLE'
  | 'ERR_VFIO_UNSUPPORTED'
  | 'ERR_IOMMUFD_UNAVAILABLE'
  | 'ERR_UNSUPPORTED'
  | 'ERR_PERMISSION'
  | 'ERR_DEVICE_NOT_FOUND'
  | 'ERR_DEVICE_NOT_BOUND'
  | 'ERR_DEVICE_OPEN'
  | 'ERR_DEVICE_IN_USE'
  | 'ERR_DEVICE_NEEDED'
  | 'ERR_BIND_FAILED'
  | 'ERR_DEVICE_ATTACH'
  | 'ERR_NO_IOMMU_GROUP'
  | 'ERR_GROUP_OPEN'
  | 'ERR_GROUP_BUSY'
  | 'ERR_GROUP_ATTACH'
  | 'ERR_GROUP_NOT_VIABLE'
  | 'ERR_NO_INTERRUPT_REMAPPING'
  | 'ERR_SET_IOMMU_FAILED'
  | 'ERR_CONTAINER_EMPTY'
  | 'ERR_BAD_KERNEL_DATA'
  | 'ERR_BAR_DISABLED'
  | 'ERR_NO_SUCH_REGION'
  | 'ERR_RESET_UNSUPPORTED'
  | 'ERR_INTERRUPT_UNSUPPORTED'
  | 'ERR_INTERRUPT_SETUP'
  // PCI
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
  readonly cause?: unknown;
}

/** Every failure of this package. `code` is for programs, `message` for people. */
export class PeerDmaError extends Error {
  override readonly name = 'PeerDmaError';
  readonly code: ErrorCode;
  declare readonly errno?: string;
  declare readonly syscall?: string;
  declare readonly range?: AddressRange;
  declare readonly target?: string;
  declare readonly device?: string;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    if (details.errno !== undefined) this.errno = details.errno;
    if (details.syscall !== undefined) this.syscall = details.syscall;
    if (details.range !== undefined) this.range = details.range;
    if (details.target !== undefined) this.target = details.target;
    if (details.device !== undefined) this.device = details.device;
  }
}

/**
 * What was thrown, as an `Error` that can be read: a target may throw anything, such as what throws when it is looked at.
 *
 * @internal
 */
export function asError(thrown: unknown): Error {
  try {
    if (!(thrown instanceof Error)) return new Error(String(thrown));
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
