/**
 * The interface between guest memory and DMA targets. VFIO containers, iommufd and vhost-user back ends are targets,
 * and your own.
 */
import type { AddressRange } from '../address-range.ts';
import type { ErrorCode } from '../errors.ts';
import type { Backing } from '../memory/backing.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import type { AcceptedMemory } from './accepted-memory.ts';

/** `ram`: memory of the guest; `device`: memory of a device, such as a BAR. */
export type MemoryKind = 'ram' | 'device';

/** A request to map one sub-mapping: all of it, at exactly this address. */
export interface DmaMapRequest {
  /** Guest-physical addresses, which are the IOVAs. Whole pages of the host. */
  readonly range: AddressRange;
  /**
   * The leased memory, with RAM faulted in, if {@link DmaTarget.needsVa} requires it. Valid until the range is
   * unmapped.
   */
  readonly hostMemory?: HostMemory;
  /**
   * The same memory as a file and offset, for targets that map files. The file stays open until the range is unmapped,
   * even if the {@link MemoryFile} of the region is closed; a target cannot close it. All requests for memory of one
   * `MemoryFile` contain the same file object, so a target can distinguish files by identity.
   */
  readonly backing: Backing;
  /** Whether the device may write. */
  readonly writable: boolean;
  /** If mapping `ram` fails, the change fails; for `device`, {@link PeerToPeer} decides. */
  readonly kind: MemoryKind;
  /** Name of the region, for messages. */
  readonly name: string;
}

/**
 * Receives the mappings of guest memory. Guest memory calls the methods of a target one at a time, with ranges that
 * never overlap, and unmaps exactly the ranges that it mapped.
 *
 * A method that throws or rejects must leave all mappings unchanged. If a map fails and cannot be undone, it throws a
 * {@link PeerDmaError} with the code `ERR_UNMAP_FAILED`; all of its requests count as mapped then. A promise must
 * settle. It must not wait for a later change of the same guest memory: both would wait forever, until
 * {@link DmaMapperClient.targetClosed} settles the call.
 *
 * All properties except `mapDma` and `unmapDma` are read once, when the target joins.
 */
export interface DmaTarget {
  /** Name in errors and in `GuestMemory.inspect()`. */
  readonly name: string;
  /**
   * Requires {@link DmaMapRequest.hostMemory} for all memory, or for `private` memory only. Private memory has no file.
   */
  readonly needsVa?: boolean | 'private';
  /**
   * Whether it maps memory for the processors of the guest, as a hypervisor does. Each change reaches it after the
   * IOMMUs, and it does not receive device memory with `mmap: false`. A guest memory has at most one such target.
   * Default: false
   */
  readonly mapsForProcessors?: boolean;
  /** The memory that it can map. Default: all of it */
  readonly accepts?: AcceptedMemory;
  /**
   * The IOVA ranges that the target can map now, sorted. RAM that none of them contains is rejected before it is
   * allocated, and DMA buffers are placed within them. An empty array means that they are not known.
   */
  iovaRanges?(): readonly AddressRange[];
  /** Maps the memory so that devices reach it at exactly these addresses, or throws and changes nothing. */
  mapDma(request: DmaMapRequest): void | Promise<void>;
  /** Unmaps one mapping: the range is exactly that of an earlier request. */
  unmapDma(range: AddressRange): void | Promise<void>;
  /**
   * Whether its device has revoked a mapping. Mappings of a BAR in iommufd are revoked when the device stops decoding
   * memory, enters D3hot or is reset. A revoked mapping occupies its addresses until it is unmapped.
   *
   * Called for mappings of device memory only. The result may change only on such an event of the device: a journal
   * calls this again for mappings of a device of this package only after the device has revoked mappings.
   */
  isRevoked?(range: AddressRange): boolean;
  /** Maps all requests, at most 1,024, or none. Without this method, they are mapped one by one. */
  mapDmaBatch?(requests: readonly DmaMapRequest[]): void | Promise<void>;
}

/**
 * The policy for device memory on a target.
 *
 * - `required`: a failure to map it is an error, as for RAM
 * - `best-effort`: a failure is recorded in {@link MappingStatus}, and the change continues
 * - `off`: device memory is skipped
 */
export type PeerToPeer = 'best-effort' | 'required' | 'off';

/** The state of one sub-mapping in one target. */
export interface MappingStatus {
  /** Guest-physical addresses, which are the IOVAs. */
  readonly range: AddressRange;
  /** Kind of the region. */
  readonly kind: MemoryKind;
  /** Name of the region. */
  readonly region: string;
  /**
   * The state of the mapping.
   *
   * - `mapped`: the target has mapped it
   * - `failed`: the target rejected it, this process could not map it for the target, or its device has revoked it
   *   (`ERR_MAPPING_REVOKED`)
   * - `skipped`: the target does not accept it, or the policy excludes it
   * - `quarantined`: it could not be unmapped. The target may still reach the memory, which is kept until the target is
   *   closed
   */
  readonly state: 'mapped' | 'failed' | 'skipped' | 'quarantined';
  /** The code of the error, if there was one. `ERR_FILE_REQUIRED` also if the target does not accept the backing. */
  readonly code?: ErrorCode;
  /** Name of the kernel's error, if a system call failed. */
  readonly errno?: string;
  /** Why it is not mapped: the error message, or the policy. */
  readonly reason?: string;
}
