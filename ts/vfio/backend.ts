/**
 * The interface of the two back ends, type1 and iommufd.
 */
import type { NativeVfioDevice } from '#native';
import type { RangeSnapshot } from '../guest/inspect.ts';
import type { DirtyTracker } from '../dma/dirty-pages.ts';
import type { DmaMapperHandle } from '../guest/dma-mapper-client.ts';
import type { Placement } from './placement.ts';
import type { RequestedDevice } from './vf-token.ts';

/**
 * The kernel interface.
 *
 * - `type1`: groups in VFIO containers
 * - `iommufd`: device files attached to address spaces of `/dev/iommu`
 */
export type VfioBackendName = 'type1' | 'iommufd';

/** An IOMMU address space and its devices: a VFIO container, or an IOAS of iommufd. */
export interface ContainerSnapshot {
  /** Its name, also as a DMA target in {@link GuestMemory.inspect}. */
  readonly name: string;
  /** The kernel interface. */
  readonly backend: VfioBackendName;
  /** The smallest page of the IOMMU, in bytes. */
  readonly pageSize: string;
  /** IOVAs that can be mapped. */
  readonly iovaRanges: readonly RangeSnapshot[];
  /** Number of mappings, as the native core counts them. */
  readonly mappings: number;
  /** Number of mappings that can still be made, if the kernel reports it. */
  readonly dmaAvailable?: number;
  /** Whether RAM is mapped as files; if not, by its host virtual address, as private memory always is. */
  readonly mapsFiles: boolean;
  /** The name that its devices were opened with, if they were. */
  readonly addressSpace?: string;
  /** The peer-to-peer domains whose BARs it maps. */
  readonly peerToPeerDomains: readonly string[];
  /** IOMMU groups of its devices. */
  readonly groups: readonly {
    /** Number of the group. */
    readonly id: number;
    /** PCI addresses of its open devices. */
    readonly devices: readonly string[];
  }[];
}

/** A device in an IOMMU address space that is a target of guest memory. @internal */
export interface PlacedDevice {
  readonly handle: NativeVfioDevice;
  /** Called before the device is closed, when its BARs are out of guest memory. If it throws, call it again. */
  prepareLeave(): Promise<void>;
  /**
   * Called after the device is closed. With the last device, unmaps everything and closes the address space. If it
   * throws, call it again: it continues with the step that failed.
   */
  leave(): Promise<void>;
}

/** @internal */
export interface Backend {
  readonly name: VfioBackendName;
  /**
   * Opens a device in an existing address space of the placement, otherwise in a new one.
   *
   * The kernel may reject an existing one. If its devices named it, that is an error. Guest memory is mapped in either.
   * If it throws, nothing is left open.
   */
  open(pci: RequestedDevice, placement: Placement): Promise<PlacedDevice>;
  /** Returns its address spaces. While memory is being pinned or unpinned, their limits are those from before. */
  inspect(): ContainerSnapshot[];
  /** Returns the registrations of its address spaces with guest memory. */
  mappers(): DmaMapperHandle[];
  /** Returns the dirty tracker of each address space. */
  trackers(): DirtyTracker[];
}
