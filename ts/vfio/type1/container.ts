/**
 * A container with its groups and their devices: opened from the outside in, closed from the inside out.
 */
import { NativeVfioContainer, NativeVfioGroup } from '#native';
import { PeerDmaError } from '../../errors.ts';
import { fromNative, native, nativeAsync } from '../../native-call.ts';
import { type DmaMapperHandle, joinPort } from '../../guest/dma-mapper-client.ts';
import { type GuestMemory, addressSpaceOf } from '../../guest/guest-memory.ts';
import type { PeerToPeer } from '../../dma/target.ts';
import { containerUnavailable, groupUnavailable, iommuRefused, notViable } from '../opening-errors.ts';
import type { PciDevice, Sysfs } from '../sysfs.ts';
import type { RequestedDevice } from '../vf-token.ts';
import { Type1Target } from './type1-target.ts';

/** An opened IOMMU group. @internal */
export class Group {
  readonly id: number;
  readonly handle: NativeVfioGroup;
  /** PCI addresses of those that are open. */
  readonly devices: Set<string> = new Set();

  private constructor(id: number, handle: NativeVfioGroup) {
    this.id = id;
    this.handle = handle;
  }

  /** @throws {PeerDmaError} `ERR_GROUP_NOT_VIABLE`, `ERR_GROUP_BUSY`, `ERR_PERMISSION`, `ERR_GROUP_OPEN` */
  static async open({ bdf }: PciDevice, id: number, sysfs: Sysfs): Promise<Group> {
    const handle = await told(
      () => NativeVfioGroup.open(id),
      (error) => groupUnavailable(bdf, id, error),
    );
    try {
      if (!native(() => handle.viable())) throw notViable(bdf, id, sysfs.group(id));
    } catch (error) {
      await nativeAsync(() => handle.closeAsync());
      throw error;
    }
    return new Group(id, handle);
  }

  close(): Promise<void> {
    return nativeAsync(() => this.handle.closeAsync());
  }
}

/** A container that follows guest memory. @internal */
export class Container {
  readonly name: string;
  readonly handle: NativeVfioContainer;
  readonly groups: Set<Group> = new Set();
  readonly target: Type1Target;
  readonly #memory: GuestMemory;
  /** How the container follows guest memory, once it does. */
  mapper: DmaMapperHandle | undefined;
  #leaving = false;

  private constructor(name: string, handle: NativeVfioContainer, memory: GuestMemory) {
    this.name = name;
    this.handle = handle;
    this.target = new Type1Target(handle, name);
    this.#memory = memory;
  }

  /**
   * Opens a container for its first group and replays guest memory into it. If it throws, nothing is left but the group.
   *
   * @throws {PeerDmaError} `ERR_VFIO_UNAVAILABLE`, `ERR_PERMISSION`, `ERR_VFIO_UNSUPPORTED`,
   * `ERR_NO_INTERRUPT_REMAPPING`; what the replay said
   */
  static async create(
    name: string,
    pci: RequestedDevice,
    first: Group,
    memory: GuestMemory,
    peerToPeer: PeerToPeer,
    sysfs: Sysfs,
  ): Promise<Container> {
    const handle = await told(() => NativeVfioContainer.open(), containerUnavailable);
    const container = new Container(name, handle, memory);
    try {
      const iommu = async (): Promise<void> => {
        await container.attach(first);
        await handle.setIommuAsync();
      };
      await told(iommu, (error) => iommuRefused(pci.bdf, error, sysfs.refusalFacts(pci)));
      container.target.limits(); // so that there is an answer while memory is being pinned
      container.mapper = await joinPort(addressSpaceOf(memory), container.target, peerToPeer);
      return container;
    } catch (error) {
      await first.close(); // before the container, which can't be closed with a group in it
      await container.#close();
      throw error;
    }
  }

  /** @throws {PeerDmaError} where the kernel does not accept the group beside those that are here */
  async attach(group: Group): Promise<void> {
    await this.target.during(() => nativeAsync(() => group.handle.attachAsync(this.handle)));
    this.groups.add(group);
  }

  /** Whether its last device has gone: it no longer follows guest memory, and takes no new group. */
  get leaving(): boolean {
    return this.#leaving;
  }

  /**
   * Closes an empty group; with the last one the container goes, everything unmapped before. If it throws, it can be called
   * again, and goes on where it was.
   */
  async release(group: Group): Promise<void> {
    if (group.devices.size > 0) return;
    if (this.groups.size === 1) {
      this.#leaving = true;
      await this.#withdraw();
    }
    await this.target.during(() => group.close());
    if (this.#leaving) await this.#close();
    this.groups.delete(group);
  }

  /** The kernel has dropped every mapping with the last group, those that it would not unmap before among them. */
  async #close(): Promise<void> {
    await nativeAsync(() => this.handle.closeAsync());
    await addressSpaceOf(this.#memory).targetClosed(this.target);
  }

  /** Unmaps everything. What can't be unmapped goes with the container. */
  async #withdraw(): Promise<void> {
    try {
      await this.mapper?.remove();
    } catch (error) {
      if (!(error instanceof PeerDmaError && error.code === 'ERR_UNMAP_FAILED')) throw error;
    }
  }
}

/** Calls the native core; what it throws is told with `tell`. */
async function told<T>(call: () => T | Promise<T>, tell: (error: PeerDmaError) => PeerDmaError): Promise<T> {
  try {
    return await call();
  } catch (thrown) {
    const error = fromNative(thrown);
    throw error instanceof PeerDmaError ? tell(error) : error;
  }
}
