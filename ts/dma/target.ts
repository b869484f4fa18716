/**
 * The seam between guest memory and whatever follows it: VFIO containers, iommufd, vhost-user back ends, your own.
 */
import type { AddressRange } from '../address-range.ts';
import type { Backing } from '../memory/backing.ts';
import type { HostMemory } from '../memory/host-memory.ts';

/** `ram` is the guest's memory; `device` is a window onto a device, such as a BAR. */
export type MemoryKind = 'ram' | 'device';

/** One sub-mapping for a target to map: all of it, at exactly this address. */
export interface DmaMapRequest {
  /** Guest-physical addresses, which are the IOVAs. Whole pages of the host. */
  readonly range: AddressRange;
  /** The memory, RAM faulted in; only where {@link DmaTarget.needsVa} asks for it. Good until the range is unmapped. */
  readonly hostMemory?: HostMemory;
  /**
   * The same memory as a file and offset, for targets that map files. The file stays open until the range is unmapped,
   * also when the {@link MemoryFile} that the memory was mapped from is closed; a target can't close it. All requests
   * for memory of one `MemoryFile` carry the same file, so a target can tell files apart by identity.
   */
  readonly backing: Backing;
  /** Whether the device may write. */
  readonly writable: boolean;
  /** What the memory is: a refusal of `device` memory may be missed, one of `ram` fails the change. */
  readonly kind: MemoryKind;
  /** Name of the region that shows the memory, for messages. */
  readonly name: string;
}

/**
 * Follows the memory map. Guest memory calls one target's methods one at a time, with ranges that never overlap, and
 * unmaps exactly what it mapped.
 *
 * A method that throws or rejects has changed nothing; if a batch could not take back what it had mapped, it says so with
 * a {@link PeerDmaError} of code `ERR_UNMAP_FAILED`, and all of the batch counts as mapped. A promise has to settle, and
 * must not wait for another change of the same guest memory, which comes after this one: everything would wait for it,
 * until {@link DmaMapperClient.targetClosed} settles it.
 *
 * What a target offers besides `mapDma` and `unmapDma` is read once, when it joins.
 */
export interface DmaTarget {
  /** For messages and {@link GuestMemory.inspect}. */
  readonly name: string;
  /** Wants {@link DmaMapRequest.hostMemory}: of everything, or of `private` memory alone, which is no file. */
  readonly needsVa?: boolean | 'private';
  /** Can't take private memory: RAM without a file is refused before this target is asked. */
  readonly needsFile?: boolean;
  /**
   * The IOVA ranges that the target can map now, sorted. RAM that none of them contains is rejected before it is
   * allocated, and DMA buffers are placed within them. An empty array means that they are not known.
   */
  iovaRanges?(): readonly AddressRange[];
  /** Maps the memory, so that the devices reach it at exactly these addresses, or throws and leaves everything as it was. */
  mapDma(request: DmaMapRequest): void | Promise<void>;
  /** Unmaps every mapping within the range; a range with gaps is fine, one that cuts a mapping is an error. */
  unmapDma(range: AddressRange): void | Promise<void>;
  /**
   * Whether a mapping is void because of what its device went through since it was made: iommufd takes the pages of a BAR
   * away when the device stops decoding memory, sleeps or is reset. A void mapping has its addresses until it is unmapped.
   * Called for mappings of device memory only. The answer may change only when the device goes through such a thing: a
   * journal asks again about mappings of a device of this package when the device has lost mappings.
   */
  isRevoked?(range: AddressRange): boolean;
  /** Maps all of the requests, of which there are at most 1,024, or none. Without it they are mapped one by one. */
  mapDmaBatch?(requests: readonly DmaMapRequest[]): void | Promise<void>;
}

/**
 * What is to happen with device memory on a target: `required`: not mapping it is an error, as for RAM;
 * `best-effort`: it is recorded in {@link MappingStatus} and everything else goes on; `off`: it is not tried.
 */
export type PeerToPeer = 'best-effort' | 'required' | 'off';

/** How one sub-mapping stands with one target. */
export interface MappingStatus {
  /** Guest-physical addresses, which are the IOVAs. */
  readonly range: AddressRange;
  /** Of the region. */
  readonly kind: MemoryKind;
  /** Of the region. */
  readonly name: string;
  /**
   * `mapped`; `failed`: the target refused it, this process could not map it for the target, or its device has made it
   * void since (`ERR_MAPPING_REVOKED`); `skipped`: peer-to-peer is off; `quarantined`: it could not be unmapped, so the
   * target may still reach that memory, which is kept until the target is closed.
   */
  readonly state: 'mapped' | 'failed' | 'skipped' | 'quarantined';
  /** An {@link ErrorCode} where the error had one. */
  readonly code?: string;
  /** Name of the kernel's error, where the kernel refused. */
  readonly errno?: string;
  /** What went wrong, for people; not there where nothing did. */
  readonly reason?: string;
}
