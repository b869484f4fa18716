/**
 * Opens VFIO devices and maps guest memory into their IOMMUs.
 */
import { readPeerPolicy, requirePeerToPeer } from '../dma/peer-policy.ts';
import type { PeerToPeer } from '../dma/target.ts';
import { type AbortSignalLike, requireSignal, runAbortable } from '../abort.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError } from '../errors.ts';
import { INSPECT, objectText, withSnapshotText } from '../object-text.ts';
import { nativeAsync } from '../native-call.ts';
import { readOptions } from '../arguments.ts';
import type { RefreshedMapping } from '../guest/device-changes.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { MutationQueue } from '../guest/mutation-queue.ts';
import { transaction } from '../guest/transaction.ts';
import { removeFileMappings } from '../guest/remove-file-mappings.ts';
import { isVfioDriver } from '../host/drivers.ts';
import { notBound } from './opening-errors.ts';
import type { VfioBackendName, ContainerSnapshot, PlacedDevice } from './backend.ts';
import { BackendChoice } from './backend-choice.ts';
import type { DescriptorSource } from '../owned-descriptor.ts';
import { type HandedDevice, type HandedFiles, closeFiles, takeHandedDevice } from './handed-device.ts';
import { DirtyTracking } from '../guest/dirty-tracking.ts';
import { type Placement, requireSpaceName } from './placement.ts';
import { Sysfs, groupOf } from './sysfs.ts';
import { type RequestedDevice, requireVfToken } from './vf-token.ts';
import { VfioDevice } from './vfio-device.ts';

/** The result of {@link VfioContainerManager.inspect}; can be passed to `JSON.stringify`. */
export interface VfioSnapshot {
  /** The kernel interface; with `auto`, missing until the first device is opened. */
  readonly backend?: VfioBackendName;
  /** Why this back end was chosen. */
  readonly reason: string;
  /** Address spaces with their groups and devices. */
  readonly containers: readonly ContainerSnapshot[];
}

/** The result of {@link VfioContainerManager.refresh} for a range of device memory in an address space. */
export interface TargetRefreshedMapping extends RefreshedMapping {
  /** Name of the address space, as in {@link GuestMemory.inspect}. */
  readonly target: string;
}

/** Options of a {@link VfioContainerManager}. */
export interface VfioOptions {
  /**
   * The kernel interface. Default: `auto`
   *
   * - `type1`: groups in VFIO containers, any kernel
   * - `iommufd`: device files in address spaces of `/dev/iommu`, Linux 6.6 and later, with peer-to-peer from 6.19 on
   * - `auto`: iommufd if the kernel supports all of that, otherwise type1
   */
  readonly backend?: 'auto' | VfioBackendName;
  /**
   * An open `/dev/iommu`, for example of a launcher; it determines the back end. It is duplicated: the caller still
   * owns the given one. Address spaces and devices of others in it are left alone. Default: opened by this process
   */
  readonly iommufd?: DescriptorSource | undefined;
  /** The policy for device memory that cannot be mapped. Default: `best-effort` */
  readonly peerToPeer?: PeerToPeer;
}

/** Options of {@link VfioContainerManager.open}. */
export interface DeviceOpenOptions {
  /** A UUID, such as `bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3`. */
  readonly vfToken?: string | undefined;
  /**
   * A name of the caller for the IOMMU address space of the device. Devices with the same name share one, or opening
   * fails; a device with another name or none is in another one. Default: chosen automatically
   */
  readonly addressSpace?: string | undefined;
  /**
   * The peer-to-peer domains whose BARs the device reaches, as in {@link DmaMapperOptions}. Devices share an address
   * space only if they have the same. Default: `['default']`
   */
  readonly peerToPeerDomains?: readonly string[] | undefined;
  /** As in {@link AbortOptions}. A device that is open by the time of the abort is closed again. */
  readonly signal?: AbortSignalLike | undefined;
}

/** The VFIO devices of one guest. */
export class VfioContainerManager {
  readonly #memory: GuestMemory;
  readonly #sysfs: Sysfs;
  readonly #peerToPeer: PeerToPeer;
  readonly #choice: BackendChoice;
  readonly #queue = new MutationQueue('this container manager');
  /** The open devices. A device is removed when all steps of its close have succeeded. */
  readonly #devices = new Map<VfioDevice, PlacedDevice>();
  #tracking: DirtyTracking | undefined;
  readonly #closing = new Closing();

  /**
   * Makes a manager without devices.
   *
   * @param memory the memory that is mapped into the devices' IOMMUs
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
   */
  constructor(memory: GuestMemory, options?: VfioOptions);
  /** @internal */
  constructor(memory: GuestMemory, options: VfioOptions, sysfs: Sysfs);
  constructor(memory: GuestMemory, options: VfioOptions = {}, sysfs: Sysfs = new Sysfs()) {
    this.#sysfs = sysfs;
    const { backend = 'auto', peerToPeer, iommufd } = readOptions(options, ['backend', 'peerToPeer', 'iommufd']);
    this.#peerToPeer = requirePeerToPeer(peerToPeer);
    guestAddressSpaceOf(memory); // throws if it is not guest memory
    this.#memory = memory;
    this.#choice = new BackendChoice(backend, memory, sysfs, iommufd);
  }

  /**
   * Opens a device. It joins an existing address space if the kernel accepts that, otherwise a new one, into which all
   * of guest memory is mapped before the device can do DMA.
   *
   * @param device PCI address, such as `0000:01:00.0`, or the UUID of a mediated device; or a device whose files
   * another process has opened
   * @param options.vfToken the UUID that the user of a physical function shares with the users of its virtual
   * functions. A virtual function requires it while its physical function is bound to vfio-pci. Opening a physical
   * function sets the token; while virtual functions of it are open, the token that is already set is required.
   * Default: none
   * @param options.addressSpace the name of its address space. Default: any unnamed one that accepts it, or a new one
   * @param options.peerToPeerDomains the domains whose BARs it reaches. Default: `['default']`
   * @param options.signal aborts the opening. If the kernel opens the device meanwhile, it is closed again before the
   * promise rejects. Default: none
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_VF_TOKEN`, `ERR_DEVICE_NOT_FOUND`, `ERR_NO_IOMMU_GROUP`,
   * `ERR_DEVICE_NOT_BOUND`, `ERR_GROUP_NOT_VIABLE` naming the devices and drivers that block it, `ERR_GROUP_BUSY`,
   * `ERR_DEVICE_IN_USE`, `ERR_PERMISSION`, `ERR_VFIO_UNAVAILABLE`, `ERR_VFIO_UNSUPPORTED`, `ERR_IOMMUFD_UNAVAILABLE`,
   * `ERR_UNSUPPORTED`, `ERR_NO_INTERRUPT_REMAPPING`, `ERR_GROUP_OPEN`, `ERR_DEVICE_OPEN`, `ERR_DEVICE_ATTACH`,
   * `ERR_BAD_KERNEL_DATA`; the error of mapping guest memory (`ERR_MEMLOCK_LIMIT`, …). Nothing is left open then
   * @throws the reason of the signal
   */
  async open(device: string | HandedDevice, options: DeviceOpenOptions = {}): Promise<VfioDevice> {
    const { vfToken, signal, addressSpace, peerToPeerDomains } = readOptions(options, [
      'vfToken',
      'signal',
      'addressSpace',
      'peerToPeerDomains',
    ]);
    const placement: Placement = {
      addressSpace: requireSpaceName(addressSpace),
      policy: readPeerPolicy({ peerToPeer: this.#peerToPeer, peerToPeerDomains }),
    };
    requireSignal(signal);
    const files = typeof device === 'object' && device !== null ? takeHandedDevice(device) : undefined;
    try {
      return await runAbortable(
        signal,
        (onTurn) => this.#open(device, files, vfToken, placement, onTurn),
        (opened) => opened.close(),
      );
    } finally {
      if (files !== undefined) closeFiles(files);
    }
  }

  /** @param files the descriptors of the device; it is an address without them */
  #open(
    device: string | HandedDevice,
    files: HandedFiles | undefined,
    vfToken: string | undefined,
    placement: Placement,
    onTurn: () => void,
  ): Promise<VfioDevice> {
    return this.#queue.run(async () => {
      onTurn();
      if (vfToken !== undefined) requireVfToken(vfToken);
      const found: RequestedDevice =
        files === undefined ? this.#sysfs.device(device as string) : this.#sysfs.handedDevice(files);
      const pci = { ...found, vfToken };
      groupOf(pci); // throws if it has no group
      const isBound = pci.files !== undefined || pci.isMediated === true || isVfioDriver(pci.driver);
      if (!isBound) throw notBound(pci);
      for (const { bdf: open } of this.#devices.keys()) {
        if (open !== pci.bdf) continue;
        throw new PeerDmaError('ERR_DEVICE_IN_USE', `${open} is already open. Close it first`, { bdf: open });
      }
      return transaction(async (undo) => {
        const placed = await this.#choice.open(pci, placement);
        undo.push(() => placed.leave());
        undo.push(() => nativeAsync(() => placed.handle.closeAsync()));
        await guestAddressSpaceOf(this.#memory).betweenChanges(() =>
          this.#tracking?.join(this.#choice.backend?.trackers() ?? []),
        );
        const addresses =
          pci.files === undefined ? this.#sysfs.hostAddresses(pci.bdf) : this.#sysfs.handedAddresses(pci.files);
        const device = new VfioDevice(pci.bdf, placed.handle, addresses, {
          memory: this.#memory,
          backend: this.#choice.backend?.name,
          close: (closing) => this.#closeDevice(closing),
        });
        this.#devices.set(device, placed);
        return device;
      });
    });
  }

  /**
   * Returns the back end, its reason, and its address spaces with limits, groups and devices. While memory is being
   * pinned or unpinned, the limits are those from before.
   */
  inspect(): VfioSnapshot {
    const { backend, reason } = this.#choice;
    return withSnapshotText('VfioSnapshot', {
      ...(backend === undefined ? {} : { backend: backend.name }),
      reason,
      containers: backend?.inspect() ?? [],
    });
  }

  /**
   * Unmaps all device memory in all address spaces and maps it again. Includes memory that could not be mapped before.
   *
   * With iommufd, the kernel revokes mappings of a BAR without a notification when another process resets the device or
   * switches off its memory decode. DMA to the memory faults until it is mapped again.
   *
   * @returns the state before, if known, and the state now, of each range of device memory in each address space
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

  /** The devices that are open. @internal */
  get openDevices(): readonly VfioDevice[] {
    return [...this.#devices.keys()];
  }

  /**
   * Starts to log the pages of RAM that the devices write, including devices that are opened later.
   *
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` if no device is open, or the IOMMU of a device cannot log (if such a
   * device is opened later, either its `open` or a `readDirty` fails); `ERR_INVALID_ARGUMENT` if tracking is already
   * active
   */
  startDirtyTracking(): Promise<DirtyTracking> {
    return this.#queue.run(async () => {
      if (this.#tracking !== undefined) {
        throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'dirty tracking is already active. Stop it first');
      }
      const trackers = this.#choice.backend?.trackers() ?? [];
      if (trackers.length === 0) {
        throw new PeerDmaError('ERR_UNSUPPORTED', 'no device is open whose writes could be tracked');
      }
      const tracking = new DirtyTracking(guestAddressSpaceOf(this.#memory), () => (this.#tracking = undefined));
      await guestAddressSpaceOf(this.#memory).betweenChanges(() => tracking.join(trackers));
      this.#tracking = tracking;
      return tracking;
    });
  }

  /**
   * Closes all devices, the last opened first, with their groups and address spaces. Idempotent.
   *
   * @throws {PeerDmaError} as {@link VfioDevice.close}; call it again then
   */
  close(): Promise<void> {
    return this.#closing.once(() =>
      this.#queue.close(async () => {
        for (const device of [...this.#devices.keys()].toReversed()) await this.#release(device);
        this.#choice.close();
      }),
    );
  }

  /** As {@link VfioContainerManager.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'VfioContainerManager', () => {
      const { backend } = this.#choice;
      const devices = [...this.#devices.keys()].map(({ bdf }) => bdf);
      return [
        '',
        ...(backend === undefined ? [] : [`backend: '${backend.name}'`]),
        `devices: ${devices.length === 0 ? 'none' : devices.join(' ')}`,
        this.#queue.closed ? 'closed' : 'open',
      ];
    });
  }

  #closeDevice(device: VfioDevice): Promise<void> {
    return this.#queue.closed ? this.close() : this.#queue.run(() => this.#release(device));
  }

  /** Unmaps its BARs before it is closed: type1 mappings of a BAR outlive the device. */
  async #release(device: VfioDevice): Promise<void> {
    const placed = this.#devices.get(device);
    if (placed === undefined) return;
    await this.#removeBars(device);
    await placed.prepareLeave();
    await device.closeDevice();
    await placed.leave();
    this.#devices.delete(device);
    this.#tracking?.keep(this.#choice.backend?.trackers() ?? []);
  }

  async #removeBars(device: VfioDevice): Promise<void> {
    const space = guestAddressSpaceOf(this.#memory);
    if (space.closed) {
      // Guest memory is unmapping everything, and its close() reports failures.
      await this.#memory.close().catch(() => {});
      return;
    }
    await removeFileMappings(space, device.memory);
  }
}
