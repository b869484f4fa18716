/**
 * Opens VFIO devices and sees to it that their containers follow guest memory.
 */
import { hex } from '../address-range.ts';
import type { PeerToPeer } from '../dma/target.ts';
import { PeerDmaError } from '../errors.ts';
import { fromNative, native } from '../native-call.ts';
import { requireOptions } from '../arguments.ts';
import { requirePolicy } from '../guest/dma-mapper-client.ts';
import { type GuestMemory, addressSpaceOf } from '../guest/guest-memory.ts';
import type { RangeSnapshot } from '../guest/inspect.ts';
import { MutationQueue } from '../guest/mutation-queue.ts';
import { deviceRefused, isVfioDriver, noIommuGroup, notBound } from './advice.ts';
import { Container, Group } from './container.ts';
import { type PciDevice, Sysfs } from './sysfs.ts';
import { VfioDevice } from './vfio-device.ts';

/** What {@link VfioContainerManager.inspect} gives; `JSON.stringify` takes it. */
export interface ContainerSnapshot {
  readonly name: string;
  readonly backend: 'type1';
  /** The smallest page of the IOMMU, in bytes. */
  readonly pageSize: string;
  /** Addresses that can be mapped. */
  readonly iovaRanges: readonly RangeSnapshot[];
  /** Mappings that can still be made, where the kernel says so. */
  readonly dmaAvailable?: number;
  readonly groups: readonly { readonly id: number; readonly devices: readonly string[] }[];
}

interface Home {
  readonly container: Container;
  readonly group: Group;
}

/** Numbers containers for people, over all managers: a name is for one container of the process. */
let containers = 0;

/** Assigned devices of one guest. */
export class VfioContainerManager {
  readonly #memory: GuestMemory;
  readonly #peerToPeer: PeerToPeer;
  readonly #sysfs: Sysfs;
  readonly #queue = new MutationQueue('this container manager');
  readonly #containers = new Set<Container>();
  /** Where each device is, until all of its closing is done. */
  readonly #homes = new Map<VfioDevice, Home>();
  #closing: Promise<void> | undefined;

  /**
   * @param options.backend how the kernel is asked. `auto` and `type1` are VFIO groups and type1v2. Default: `auto`
   * @param options.peerToPeer what to do about device memory that can't be mapped. Default: `best-effort`
   */
  constructor(
    memory: GuestMemory,
    options: { backend?: 'auto' | 'type1'; peerToPeer?: PeerToPeer } = {},
    /** @internal */ sysfs: Sysfs = new Sysfs(),
  ) {
    this.#sysfs = sysfs;
    const { backend = 'auto', peerToPeer } = requireOptions(options);
    addressSpaceOf(memory); // which says so, if it is none
    if (backend !== 'auto' && backend !== 'type1') {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the back end is 'auto' or 'type1', not ${String(backend)}`);
    }
    this.#memory = memory;
    this.#peerToPeer = requirePolicy(peerToPeer);
  }

  /**
   * Opens a device. Its group joins a container that is here where the kernel accepts that, otherwise a new one, into
   * which all of guest memory is mapped before the device is opened.
   *
   * @param bdf PCI address, such as `0000:01:00.0`
   * @throws {PeerDmaError} `ERR_DEVICE_NOT_FOUND`, `ERR_NO_IOMMU_GROUP`, `ERR_DEVICE_NOT_BOUND`,
   * `ERR_GROUP_NOT_VIABLE` naming the devices and drivers that block it, `ERR_GROUP_BUSY`, `ERR_DEVICE_IN_USE`, `ERR_PERMISSION`,
   * `ERR_VFIO_UNAVAILABLE`, `ERR_NO_INTERRUPT_REMAPPING`, `ERR_DEVICE_OPEN`; what the replay of the memory map said
   * (`ERR_MEMLOCK_LIMIT`, …). Nothing is left open then
   */
  open(bdf: string): Promise<VfioDevice> {
    return this.#queue.run(async () => {
      const pci = this.#sysfs.device(bdf);
      if (pci.iommuGroup === undefined) throw noIommuGroup(pci.bdf);
      if (!isVfioDriver(pci.driver)) throw notBound(pci);
      const { container, group } = await this.#place(pci, pci.iommuGroup);
      try {
        const device = openDevice(pci.bdf, group, this.#sysfs, (closing) => this.#closeDevice(closing));
        group.devices.add(device);
        this.#homes.set(device, { container, group });
        return device;
      } catch (error) {
        await this.#leave(container, group);
        throw error;
      }
    });
  }

  /**
   * Containers with their groups and devices, and what their IOMMUs can do now; while memory is being pinned or unpinned,
   * what they could do before.
   */
  inspect(): ContainerSnapshot[] {
    const live = [...this.#containers].filter(({ leaving }) => !leaving);
    return live.map((container) => {
      const { name, groups } = container;
      const { pageSize, iovaRanges, dmaAvailable } = container.limits();
      return {
        name,
        backend: 'type1',
        pageSize: hex(pageSize),
        iovaRanges: iovaRanges.map(({ start, end }) => ({ start: hex(start), end: hex(end) })),
        ...(dmaAvailable === undefined ? {} : { dmaAvailable }),
        groups: [...groups].map(({ id, devices }) => ({ id, devices: [...devices].map((device) => device.bdf) })),
      };
    });
  }

  /**
   * Closes every device, the last opened first, with groups and containers. Idempotent.
   *
   * @throws {PeerDmaError} as {@link VfioDevice.close}; it can be called again then
   */
  close(): Promise<void> {
    this.#closing ??= this.#queue
      .close(async () => {
        for (const device of [...this.#homes.keys()].toReversed()) await this.#release(device);
      })
      .catch((error: unknown) => {
        this.#closing = undefined;
        throw error;
      });
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** The group, opened if it was not, in its container. */
  async #place(pci: PciDevice, id: number): Promise<Home> {
    for (const container of this.#containers) {
      for (const group of container.groups) {
        if (group.id !== id) continue;
        for (const { bdf } of group.devices) {
          if (bdf !== pci.bdf) continue;
          throw new PeerDmaError('ERR_DEVICE_IN_USE', `${bdf} is open already: close it first`, { device: bdf });
        }
        if (group.devices.size > 0) return { container, group };
        await this.#leave(container, group); // whose closing did not come to its end
      }
    }
    const group = Group.open(pci, id, this.#sysfs);
    try {
      return { container: (await this.#join(group)) ?? (await this.#newContainer(pci, group)), group };
    } catch (error) {
      group.close();
      throw error;
    }
  }

  /** A container that is here and takes the group; asked between changes, which it would wait for on the event loop. */
  async #join(group: Group): Promise<Container | undefined> {
    const space = addressSpaceOf(this.#memory);
    for (const container of this.#containers) {
      if (container.leaving) continue;
      try {
        await space.betweenChanges(() => container.attach(group));
        return container;
      } catch (error) {
        // Incompatible IOMMUs, or reserved addresses of the device where memory is mapped: it gets its own container.
        if (!(error instanceof PeerDmaError && error.code === 'ERR_GROUP_ATTACH')) throw error;
      }
    }
    return undefined;
  }

  async #newContainer(pci: PciDevice, group: Group): Promise<Container> {
    const name = `vfio-type1:${containers++}`;
    const container = await Container.create(name, pci.bdf, group, this.#memory, this.#peerToPeer);
    this.#containers.add(container);
    return container;
  }

  #closeDevice(device: VfioDevice): Promise<void> {
    return this.#queue.closed ? this.close() : this.#queue.run(() => this.#release(device));
  }

  /** Its BARs leave guest memory before it is closed: an IOMMU would go on reaching them (type1 never lets go). */
  async #release(device: VfioDevice): Promise<void> {
    const home = this.#homes.get(device);
    if (home === undefined) return;
    const { container, group } = home;
    await this.#withdrawBars(device);
    device.closeDevice();
    group.devices.delete(device);
    await this.#leave(container, group);
    this.#homes.delete(device);
  }

  async #withdrawBars(device: VfioDevice): Promise<void> {
    const space = addressSpaceOf(this.#memory);
    if (space.closed) {
      // It is unmapping everything; what it can't unmap, it says itself.
      await this.#memory.close().catch(() => {});
      return;
    }
    await space.change((draft) => {
      for (const region of draft.regions()) {
        for (const { store, range } of region.mappings.values()) {
          if (store.file === device.file) draft.unmap(region.id, range);
        }
      }
    });
  }

  async #leave(container: Container, group: Group): Promise<void> {
    await container.release(group);
    if (container.groups.size === 0) this.#containers.delete(container);
  }
}

function openDevice(
  bdf: string,
  group: Group,
  sysfs: Sysfs,
  onClose: (device: VfioDevice) => Promise<void>,
): VfioDevice {
  let handle;
  try {
    handle = group.handle.openDevice(bdf);
  } catch (thrown) {
    const error = fromNative(thrown);
    throw error instanceof PeerDmaError ? deviceRefused(bdf, error) : error;
  }
  try {
    return new VfioDevice(bdf, handle, sysfs.hostAddresses(bdf), onClose);
  } catch (error) {
    const opened = handle;
    native(() => opened.close());
    throw error;
  }
}
