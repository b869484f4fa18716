/**
 * The iommufd back end: device files that are bound to an iommufd and attached to its address spaces.
 */
import { type NativeIommufd, NativeVfioDevice } from '#native';
import { hex } from '../../address-range.ts';
import type { DirtyTracker } from '../../dma/dirty-pages.ts';
import { PeerDmaError } from '../../errors.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../../guest/guest-memory.ts';
import { fromNative, native, nativeAsync } from '../../native-call.ts';
import {
  NO_DMA_BUFS,
  descriptorRefused,
  deviceFileRefused,
  iommufdUnavailable,
  mapsNoFiles,
  noDeviceFile,
  noDmaBufs,
} from '../opening-errors.ts';
import type { Backend, ContainerSnapshot, PlacedDevice } from '../backend.ts';
import { type Placement, candidateSpaces, placementSnapshot, refusedByNamed } from '../placement.ts';
import { type Sysfs, groupOf } from '../sysfs.ts';
import { type RequestedDevice, nameWithToken } from '../vf-token.ts';
import type { DmaMapperHandle } from '../../guest/dma-mapper-client.ts';
import { Ioas } from './ioas.ts';
import { SharedIommufd } from './shared-iommufd.ts';

/** Number of address spaces so far in all managers, so that names are unique in the process. */
let spaces = 0;

/** @internal */
export class IommufdBackend implements Backend {
  readonly name = 'iommufd';
  readonly #memory: GuestMemory;
  readonly #sysfs: Sysfs;
  /** The iommufd of another process, if one was passed. */
  readonly #handed: NativeIommufd | undefined;
  /** Otherwise that of this process, open while it has an address space. */
  #iommufd: SharedIommufd | undefined;
  readonly #spaces = new Set<Ioas>();

  constructor(memory: GuestMemory, sysfs: Sysfs, handed?: NativeIommufd) {
    this.#memory = memory;
    this.#sysfs = sysfs;
    this.#handed = handed;
  }

  async open(pci: RequestedDevice, placement: Placement): Promise<PlacedDevice> {
    try {
      this.#candidates(pci, placement); // before anything is opened
      const iommufd = this.#open(pci.files !== undefined);
      return await this.#place(pci, placement, await this.#bind(pci, iommufd), iommufd);
    } catch (error) {
      this.#closeIfUnused();
      throw error;
    }
  }

  /**
   * Opens a device if the kernel's iommufd has all features that this package uses. They are mapping files, and BARs as
   * dma-bufs. A mediated device has no BARs to export: the version of the kernel decides for the devices after it.
   *
   * @returns the device, or the reason why iommufd cannot be used
   * @throws {PeerDmaError} an error that any back end would have
   */
  async openIfComplete(pci: RequestedDevice, placement: Placement): Promise<PlacedDevice | string> {
    try {
      const iommufd = this.#open(false);
      if (!iommufd.mapsFiles) return mapsNoFiles().message;
      if (pci.isMediated === true && this.#sysfs.exportsBars === false) return NO_DMA_BUFS;
      const handle = await this.#bind(pci, iommufd);
      try {
        if (pci.isMediated !== true) native(() => handle.checkDmaBufs());
      } catch (error) {
        await nativeAsync(() => handle.closeAsync());
        throw error instanceof PeerDmaError ? noDmaBufs(pci.bdf, error) : error;
      }
      return await this.#place(pci, placement, handle, iommufd);
    } catch (error) {
      if (error instanceof PeerDmaError && UNAVAILABLE.has(error.code)) return error.message;
      throw error;
    } finally {
      this.#closeIfUnused();
    }
  }

  inspect(): ContainerSnapshot[] {
    // An address space whose close failed is still in the set, without devices.
    const used = [...this.#spaces].filter(({ devices }) => devices.size > 0);
    return used.map((space) => {
      const { pageSize, iovaRanges } = space.target.limits();
      return {
        name: space.name,
        backend: 'iommufd',
        pageSize: hex(pageSize),
        iovaRanges: iovaRanges.map(({ start, end }) => ({ start: hex(start), end: hex(end) })),
        mappings: space.mappingCount,
        mapsFiles: space.target.mapsFiles,
        ...placementSnapshot(space.placement),
        groups: byGroup(space.devices),
      };
    });
  }

  trackers(): DirtyTracker[] {
    return [...this.#spaces].filter(({ leaving }) => !leaving).map(({ target }) => target);
  }

  mappers(): DmaMapperHandle[] {
    return [...this.#spaces].flatMap(({ mapper }) => mapper ?? []);
  }

  #open(isHanded: boolean): NativeIommufd {
    if (this.#handed !== undefined) return this.#handed;
    try {
      return (this.#iommufd ??= SharedIommufd.open()).iommufd;
    } catch (thrown) {
      const error = fromNative(thrown);
      throw error instanceof PeerDmaError ? iommufdUnavailable(error, isHanded) : error;
    }
  }

  async #bind(pci: RequestedDevice, iommufd: NativeIommufd): Promise<NativeVfioDevice> {
    const { bdf } = pci;
    const group = groupOf(pci);
    const name = nameWithToken(pci);
    const file = pci.files?.cdev;
    const number = file === undefined ? this.#deviceFile(bdf) : undefined;
    try {
      if (number !== undefined) return await NativeVfioDevice.openByFileAsync(name, number, iommufd);
      return await NativeVfioDevice.fromFdAsync(name, file?.fd ?? -1, iommufd);
    } catch (thrown) {
      const error = fromNative(thrown);
      if (!(error instanceof PeerDmaError)) throw error;
      if (file !== undefined && error.syscall === undefined) throw descriptorRefused('cdev', error, bdf);
      const members = this.#sysfs.group(group);
      throw deviceFileRefused(bdf, number, error, group, members, this.#sysfs.refusalFacts(pci));
    }
  }

  #deviceFile(bdf: string): number {
    const number = this.#sysfs.deviceFile(bdf);
    if (number === undefined) throw noDeviceFile(bdf);
    return number;
  }

  /** Attaches a device to an existing address space or a new one. If it throws, the device is closed. */
  async #place(
    pci: RequestedDevice,
    placement: Placement,
    handle: NativeVfioDevice,
    iommufd: NativeIommufd,
  ): Promise<PlacedDevice> {
    try {
      const joined = await this.#attachToExisting(pci, placement, handle);
      const space = joined ?? (await this.#newSpace(pci, placement, handle, iommufd));
      return {
        handle,
        prepareLeave: () => space.prepareRelease(),
        leave: async () => {
          await space.release(pci.bdf);
          if (space.devices.size > 0) return;
          this.#spaces.delete(space);
          this.#closeIfUnused();
        },
      };
    } catch (error) {
      await nativeAsync(() => handle.closeAsync());
      throw error;
    }
  }

  /**
   * Attaches a device to an existing address space.
   *
   * @returns the address space, if one accepts the device
   * @throws {PeerDmaError} `ERR_DEVICE_ATTACH` if the named address space does not accept it
   */
  async #attachToExisting(
    pci: RequestedDevice,
    placement: Placement,
    handle: NativeVfioDevice,
  ): Promise<Ioas | undefined> {
    for (const space of this.#candidates(pci, placement)) {
      try {
        // The mappings must not change during the attach.
        await guestAddressSpaceOf(this.#memory).betweenChanges(() => space.attach(handle, pci.bdf, groupOf(pci)));
        return space;
      } catch (error) {
        if (!isIncompatible(error)) throw error;
        if (placement.addressSpace !== undefined) throw refusedByNamed(pci.bdf, space, error);
      }
    }
    return undefined;
  }

  /** As {@link candidateSpaces}. */
  #candidates(pci: RequestedDevice, placement: Placement): Ioas[] {
    return candidateSpaces(this.#spaces, { bdf: pci.bdf, group: groupOf(pci) }, placement);
  }

  async #newSpace(
    pci: RequestedDevice,
    placement: Placement,
    handle: NativeVfioDevice,
    iommufd: NativeIommufd,
  ): Promise<Ioas> {
    const space = new Ioas(`vfio-iommufd:${spaces++}`, iommufd, this.#memory, placement);
    try {
      await space.attach(handle, pci.bdf, groupOf(pci));
      await space.join();
      this.#spaces.add(space);
      return space;
    } catch (error) {
      // The device is closed first: an address space with an attached device cannot be destroyed.
      await nativeAsync(() => handle.closeAsync());
      await space.release(pci.bdf);
      throw error;
    }
  }

  #closeIfUnused(): void {
    if (this.#spaces.size > 0) return;
    this.#iommufd?.release();
    this.#iommufd = undefined;
  }
}

/** Errors with which iommufd cannot be used, while another back end may work. */
const UNAVAILABLE: ReadonlySet<string> = new Set([
  'ERR_IOMMUFD_UNAVAILABLE',
  'ERR_UNSUPPORTED',
  'ERR_PERMISSION',
  'ERR_NO_INTERRUPT_REMAPPING', // each back end has its own module parameter that allows this
  'ERR_DEVICE_OPEN',
  'ERR_DEVICE_ATTACH',
]);

/**
 * Whether an address space cannot have a device. Their IOMMUs differ (`EINVAL`), or memory is mapped at reserved
 * addresses of the device (`EADDRINUSE`). After another failure, such as `ENOMEM`, a new address space would pin all of
 * guest memory a second time.
 */
function isIncompatible(error: unknown): error is PeerDmaError {
  if (!(error instanceof PeerDmaError) || error.code !== 'ERR_DEVICE_ATTACH') return false;
  return error.errno === 'EINVAL' || error.errno === 'EADDRINUSE';
}

function byGroup(devices: ReadonlyMap<string, number>): ContainerSnapshot['groups'] {
  const groups = new Map<number, string[]>();
  for (const [bdf, group] of devices) groups.set(group, [...(groups.get(group) ?? []), bdf]);
  return [...groups].map(([id, members]) => ({ id, devices: members }));
}
