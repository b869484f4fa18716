/**
 * Explains why an IOMMU rejected a mapping, from the errno and the limits of the IOMMU. The simulated IOMMU and the
 * real one share these messages.
 */
import type { AddressRange } from '../address-range.ts';
import { type ErrorCode, PeerDmaError } from '../errors.ts';
import { fileMemoryOf } from '../memory/memory-file.ts';
import type { DmaMapRequest } from './target.ts';

/** The limits that an IOMMU reports. @internal */
export interface IommuLimits {
  /** The smallest page that it maps, in bytes. */
  readonly pageSize: bigint;
  /** IOVAs that it can map, sorted; the gaps are reserved. */
  readonly iovaRanges: readonly AddressRange[];
}

/** The response of an IOMMU that rejected a mapping. @internal */
export interface Refusal {
  readonly errno: string;
  readonly syscall?: string | undefined;
  readonly target: string;
  readonly limits: IommuLimits;
  readonly cause?: unknown;
}

/**
 * The error for a rejected mapping, with the reason and the remedy.
 *
 * Meaning of each errno: Linux `drivers/vfio/vfio_iommu_type1.c`, `vfio_dma_do_map`; for iommufd
 * `drivers/iommu/iommufd/io_pagetable.c`, `iopt_map_common`.
 *
 * @internal
 */
export function refusedMapping(request: DmaMapRequest, refusal: Refusal): PeerDmaError {
  const { errno, syscall, target, cause } = refusal;
  const [code, reason] = explain(request, refusal);
  const response = syscall === undefined ? errno : `${errno} from ${syscall}`;
  return new PeerDmaError(code, `${target}: cannot map "${request.name}" at ${request.range}: ${response}: ${reason}`, {
    errno,
    syscall,
    range: request.range,
    target,
    cause,
  });
}

const UNEXPLAINED = 'the kernel did not accept the request. Check dmesg for the reason; nothing was mapped';

function explain(request: DmaMapRequest, { errno, limits, syscall }: Refusal): [ErrorCode, string] {
  const { range, kind, writable, backing } = request;
  switch (errno) {
    case 'EEXIST':
      return ['ERR_IOVA_OVERLAP', 'another mapping already has some of these IOVAs. Unmap it first'];
    case 'ENOSPC':
      if (syscall?.includes('MAP_FILE') === true && backing !== 'private') {
        return [
          'ERR_MEMORY_FAULT',
          `the file system of ${backing.file.name} has no space for its pages. Raise its limit (tmpfs: mount option ` +
            'size), or back RAM with a file of MemoryFile.create()',
        ];
      }
      return [
        'ERR_MAPPING_LIMIT',
        'the container has reached its limit of mappings. Use fewer and larger mappings, or raise dma_entry_limit ' +
          'of the module vfio_iommu_type1 before the container is opened',
      ];
    case 'ENOMEM':
      // BARs are not counted.
      if (backing !== 'private' && fileMemoryOf(backing.file).device !== undefined) {
        return ['ERR_MAP_FAILED', 'the kernel has no memory for the mapping. Free memory, and map it again'];
      }
      return [
        'ERR_MEMLOCK_LIMIT',
        'pinning it would exceed the limit of locked memory (RLIMIT_MEMLOCK), or the kernel has no memory for it. ' +
          'Raise the limit to the size of all guest RAM (type1: once for each container; iommufd: for all processes ' +
          'of the user together; ulimit -l, LimitMEMLOCK=), or give the process CAP_IPC_LOCK. If it is below ' +
          'the limit, free memory of the host',
      ];
    case 'ENODEV': // iommufd
    case 'EFAULT':
      return kind === 'device' && backing !== 'private'
        ? [
            'ERR_MEMORY_FAULT',
            `${backing.file.name} has no memory there now. If it is the BAR of a device, turn on its memory decode ` +
              '(Command register, bit 1) and map it again',
          ]
        : [
            'ERR_MEMORY_FAULT',
            `some of the memory is missing${writable ? ' or not writable' : ''}, such as past the end of a file that ` +
              'was truncated. Restore the file, or map the remaining part',
          ];
    case 'EINVAL':
    case 'EOVERFLOW': {
      if (range.start % limits.pageSize !== 0n || range.end % limits.pageSize !== 0n) {
        return ['ERR_UNALIGNED', `the IOMMU maps whole pages of ${limits.pageSize} bytes. Align the range to them`];
      }
      if (!limits.iovaRanges.some((valid) => valid.contains(range))) {
        const valid = limits.iovaRanges.join(', ');
        return [
          'ERR_IOVA_UNREACHABLE',
          'the IOMMU cannot map all of these IOVAs: some are reserved (MSI, other devices) or beyond its width. ' +
            `Place it within one of ${valid}`,
        ];
      }
      if (
        backing !== 'private' &&
        kind === 'ram' &&
        !fileMemoryOf(backing.file).reaches(backing.offset + range.length)
      ) {
        return [
          'ERR_MEMORY_FAULT',
          `${backing.file.name} is shorter than that now. Restore the file, or map the remaining part`,
        ];
      }
      if (syscall?.includes('MAP_FILE') === true) {
        return [
          'ERR_MAP_FAILED',
          'iommufd maps memfds, files of hugetlbfs and shared memory. Back RAM with one of these',
        ];
      }
      return ['ERR_MAP_FAILED', UNEXPLAINED];
    }
    default:
      return ['ERR_MAP_FAILED', UNEXPLAINED];
  }
}
