/**
 * Opens VFIO devices and sees to it that their IOMMUs follow guest memory.
 */
import type { PeerToPeer } from '../dma/target.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError } from '../errors.ts';
import { nativeAsync } from '../native-call.ts';
import { readOptions } from '../arguments.ts';
import type { RefreshedMapping } from '../guest/device-changes.ts';
import { requirePolicy } from '../guest/dma-mapper-client.ts';
import { type GuestMemory, addressSpaceOf } from '../guest/guest-memory.ts';
import { MutationQueue } from '../guest/mutation-queue.ts';
import { withdrawFile } from '../guest/withdraw-file.ts';
import { isVfioDriver } from '../host/drivers.ts';
import { notBound } from './opening-errors.ts';
import type { BackendName, ContainerSnapshot, PlacedDevice } from './backend.ts';
import { BackendChoice } from './backend-choice.ts';
import { DirtyTracking } from './dirty-tracking.ts';
import { Sysfs, groupOf } from './sysfs.ts';
import { requireVfToken } from './vf-token.ts';
import { VfioDevice } from './vfio-device.ts';

/** What {@link VfioContainerManager.inspect} gives; `JSON.stringify` takes it. */
export interface VfioSnapshot {
  /** How the kernel is asked; not there while `auto` is still to be decided, which the first device does. */
  readonly backend?: BackendName;
  /** Why that. */
  readonly reason: string;
  /** Address spaces with their groups and devices. */
  readonly containers: readonly ContainerSnapshot[];
}

/** What {@link VfioContainerManager.refresh} found of a stretch of device memory in one of its address spaces. */
export interface TargetRefreshedMapping extends RefreshedMapping {
  /** Name of the address space, as {@link GuestMemory.inspect} has it. */
  readonly target: string;
}

/** How a {@link VfioContainerManager} is to go about it. */
export interface VfioOptions {
  /**
   * How the kernel is asked. `type1`: groups in VFIO containers, any kernel; `iommufd`: devices by their own files in address
   * spaces of `/dev/iommu`, Linux 6.6 and later, with peer-to-peer from 6.19 on; `auto`: iommufd where it can do all that, else
   * type1. Default: `auto`
   */
  readonly backend?: 'auto' | BackendName;
  /** What to do about device memory that can't be mapped. Default: `best-effort` */
  readonly peerToPeer?: PeerToPeer;
}

/** How {@link VfioContainerManager.open} is to open a device. */
export interface OpenOptions {
  /** A UUID, such as `bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3`. */
  readonly vfToken?: string | undefined;
}

/** Assigned devices of one guest. */
export class VfioContainerManager {
  readonly #memory: GuestMemory;
  readonly #sysfs: Sysfs;
  readonly #choice: BackendChoice;
  readonly #queue = new MutationQueue('this container manager');
  /** What each device is in, until all of its closing is done. */
  readonly #devices = new Map<VfioDevice, PlacedDevice>();
  #tracking: DirtyTracking | undefined;
  readonly #closing = new Closing();

  /**
   * Opens nothing yet.
   *
   * @param memory what the devices' IOMMUs are to follow
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
   */
  constructor(memory: GuestMemory, options?: VfioOptions);
  /** @internal */
  constructor(memory: GuestMemory, options: VfioOptions, sysfs: Sysfs);
  constructor(memory: GuestMemory, options: VfioOptions = {}, sysfs: Sysfs = new Sysfs()) {
    this.#sysfs = sysfs;
    const { backend = 'auto', peerToPeer } = readOptions(options, ['backend', 'peerToPeer']);
    addressSpaceOf(memory); // which says so, if it is none
    this.#memory = memory;
    this.#choice = new BackendChoice(backend, memory, requirePolicy(peerToPeer), sysfs);
  }

  /**
   * Opens a device. It joins an address space that is here where the kernel accepts that, otherwise a new one, into
   * which all of guest memory is mapped before it can do DMA.
   *
   * @param bdf PCI address, such as `0000:01:00.0`
   * @param options.vfToken the UUID that the user of a physical function shares with those of its virtual functions. A
   * virtual function requires it while its physical function is bound to vfio-pci. On a physical function it is set;
   * while virtual functions of it are open, the token that is set already is required. Default: none
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_VF_TOKEN`, `ERR_DEVICE_NOT_FOUND`, `ERR_NO_IOMMU_GROUP`,
   * `ERR_DEVICE_NOT_BOUND`,
   * `ERR_GROUP_NOT_VIABLE` naming the devices and drivers that block it, `ERR_GROUP_BUSY`, `ERR_DEVICE_IN_USE`, `ERR_PERMISSION`,
   * `ERR_VFIO_UNAVAILABLE`, `ERR_VFIO_UNSUPPORTED`, `ERR_IOMMUFD_UNAVAILABLE`, `ERR_UNSUPPORTED`, `ERR_NO_INTERRUPT_REMAPPING`,
   * `ERR_GROUP_OPEN`, `ERR_DEVICE_OPEN`, `ERR_DEVICE_ATTACH`, `ERR_BAD_KERNEL_DATA`; what the replay of the memory map said
   * (`ERR_MEMLOCK_LIMIT`, …). Nothing is left open then
   */
  open(bdf: string, options: OpenOptions = {}): Promise<VfioDevice> {
    return this.#queue.run(async () => {
      const { vfToken } = readOptions(options, ['vfToken']);
      if (vfToken !== undefined) requireVfToken(vfToken);
      const pci = { ...this.#sysfs.device(bdf), vfToken };
      groupOf(pci); // which says so, if there is none
      if (!isVfioDriver(pci.driver)) throw notBound(pci);
      for (const { bdf: open } of this.#devices.keys()) {
        if (open !== pci.bdf) continue;
        throw new PeerDmaError('ERR_DEVICE_IN_USE', `${open} is open already: close it first`, { device: open });
      }
      const placed = await this.#choice.open(pci);
      try {
        await addressSpaceOf(this.#memory).betweenChanges(() =>
          this.#tracking?.join(this.#choice.backend?.trackers() ?? []),
        );
        const device = new VfioDevice(pci.bdf, placed.handle, this.#sysfs.hostAddresses(pci.bdf), {
          memory: this.#memory,
          close: (closing) => this.#closeDevice(closing),
        });
        this.#devices.set(device, placed);
        return device;
      } catch (error) {
        await nativeAsync(() => placed.handle.closeAsync());
        await placed.leave();
        throw error;
      }
    });
  }

  /**
   * Which back end there is and why, and its address spaces with their groups and devices, with what their IOMMUs can do now;
   * while memory is being pinned or unpinned, what they could do before.
   */
  inspect(): VfioSnapshot {
    const { backend, reason } = this.#choice;
    return {
      ...(backend === undefined ? {} : { backend: backend.name }),
      reason,
      containers: backend?.inspect() ?? [],
    };
  }

  /**
   * Maps device memory anew in all address spaces: what is void there without anybody having been told, as BARs are with iommufd
   * once another process has reset their device or switched its memory off, and what could not be mapped before. While it is mapped
   * anew, DMA to it faults.
   *
   * @returns for each stretch of device memory in each address space how it was, as far as that is known, and how it is now
   */
  refresh(): Promise<TargetRefreshedMapping[]> {
    return this.#queue.run(async () => {
      const found: TargetRefreshedMapping[] = [];
      for (const mapper of this.#choice.backend?.mappers() ?? []) {
        for (const one of await mapper.refresh()) found.push({ ...one, target: mapper.name });
      }
      return found;
    });
  }

  /**
   * Begins to log which pages of RAM the devices write, those that are opened later among them.
   *
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` where there is no device, or the IOMMU of one does not log (if one like that is opened
   * meanwhile, either that fails, or reading what it may have written); `ERR_INVALID_ARGUMENT` while it is being logged
   */
  startDirtyTracking(): Promise<DirtyTracking> {
    return this.#queue.run(async () => {
      if (this.#tracking !== undefined) {
        throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'dirty pages are being tracked already: stop that first');
      }
      const trackers = this.#choice.backend?.trackers() ?? [];
      if (trackers.length === 0) {
        throw new PeerDmaError('ERR_UNSUPPORTED', 'no device is open whose writes could be tracked');
      }
      const tracking = new DirtyTracking(addressSpaceOf(this.#memory), () => (this.#tracking = undefined));
      await addressSpaceOf(this.#memory).betweenChanges(() => tracking.join(trackers));
      this.#tracking = tracking;
      return tracking;
    });
  }

  /**
   * Closes every device, the last opened first, with all that they are in. Idempotent.
   *
   * @throws {PeerDmaError} as {@link VfioDevice.close}; it can be called again then
   */
  close(): Promise<void> {
    return this.#closing.once(() =>
      this.#queue.close(async () => {
        for (const device of [...this.#devices.keys()].toReversed()) await this.#release(device);
      }),
    );
  }

  /** As {@link VfioContainerManager.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #closeDevice(device: VfioDevice): Promise<void> {
    return this.#queue.closed ? this.close() : this.#queue.run(() => this.#release(device));
  }

  /** Its BARs leave guest memory before it is closed: an IOMMU may go on reaching them (type1 never lets go). */
  async #release(device: VfioDevice): Promise<void> {
    const placed = this.#devices.get(device);
    if (placed === undefined) return;
    await this.#withdrawBars(device);
    await placed.prepareLeave();
    await device.closeDevice();
    await placed.leave();
    this.#devices.delete(device);
    this.#tracking?.keep(this.#choice.backend?.trackers() ?? []);
  }

  async #withdrawBars(device: VfioDevice): Promise<void> {
    const space = addressSpaceOf(this.#memory);
    if (space.closed) {
      // It is unmapping everything; what it can't unmap, it says itself.
      await this.#memory.close().catch(() => {});
      return;
    }
    await withdrawFile(space, device.file);
  }
}
