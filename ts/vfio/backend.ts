/**
 * The two ways in which the kernel gives devices to a process, behind one interface.
 */
import type { NativeVfioDevice } from '#native';
import type { RangeSnapshot } from '../guest/inspect.ts';
import type { DirtyTracker } from '../dma/dirty-pages.ts';
import type { DmaMapperHandle } from '../guest/dma-mapper-client.ts';
import type { RequestedDevice } from './vf-token.ts';

/** `type1`: groups in VFIO containers; `iommufd`: devices by their own files, in address spaces of `/dev/iommu`. */
export type BackendName = 'type1' | 'iommufd';

/** An address space of IOMMUs with the devices in it: a VFIO container, or an IOAS of iommufd. */
export interface ContainerSnapshot {
  /** For people: the DMA target that it is in {@link GuestMemory.inspect} has the same. */
  readonly name: string;
  /** How the kernel is asked. */
  readonly backend: BackendName;
  /** The smallest page of the IOMMU, in bytes. */
  readonly pageSize: string;
  /** Addresses that can be mapped. */
  readonly iovaRanges: readonly RangeSnapshot[];
  /** Mappings that there are, by the native core's own count. */
  readonly mappings: number;
  /** Mappings that can still be made, where the kernel says so. */
  readonly dmaAvailable?: number;
  /** Whether RAM is mapped as the files that it is; else by its place in this process, as private memory always is. */
  readonly mapsFiles: boolean;
  /** IOMMU groups that have devices in it. */
  readonly groups: readonly {
    /** The kernel's number of it. */
    readonly id: number;
    /** PCI addresses of those of its devices that are open. */
    readonly devices: readonly string[];
  }[];
}

/** A device in an address space that follows guest memory. @internal */
export interface PlacedDevice {
  readonly handle: NativeVfioDevice;
  /** What is due while it is still open, its BARs out of guest memory. If it throws, it can be called again. */
  prepareLeave(): Promise<void>;
  /**
   * Gives back what the device was in, once it is closed; with the last device of an address space that goes too, everything
   * unmapped before. If it throws, it can be called again, and goes on where it was.
   */
  leave(): Promise<void>;
}

/** @internal */
export interface Backend {
  readonly name: BackendName;
  /**
   * Opens a device, in an address space that is here where the kernel accepts that, otherwise in a new one, into which all
   * of guest memory is mapped before. If it throws, nothing is left open.
   */
  open(pci: RequestedDevice): Promise<PlacedDevice>;
  /** What its address spaces can do now; while memory is being pinned or unpinned, what they could do before. */
  inspect(): ContainerSnapshot[];
  /** How its address spaces follow guest memory. */
  mappers(): DmaMapperHandle[];
  /** What logs the writes of the devices in each address space. */
  trackers(): DirtyTracker[];
}
