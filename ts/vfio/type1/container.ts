/**
 * A VFIO container with its groups. Opened in the order container, group, device; closed in reverse.
 */
import { NativeVfioContainer, NativeVfioGroup } from '#native';
import { PeerDmaError } from '../../errors.ts';
import { fromNative, native, nativeAsync } from '../../native-call.ts';
import { type DmaMapperHandle, joinPort } from '../../guest/dma-mapper-client.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../../guest/guest-memory.ts';
import {
  containerUnavailable,
  descriptorRefused,
  groupUnavailable,
  iommuRefused,
  notViable,
} from '../opening-errors.ts';
import type { PlacedSpace, Placement } from '../placement.ts';
import type { Sysfs } from '../sysfs.ts';
import type { RequestedDevice } from '../vf-token.ts';
import { Type1Target } from './type1-target.ts';

/** An opened IOMMU group. @internal */
export class Group {
  readonly id: number;
  readonly handle: NativeVfioGroup;
  /** PCI addresses of its open devices. */
  readonly devices: Set<string> = new Set();

  private constructor(id: number, handle: NativeVfioGroup) {
    this.id = id;
    this.handle = handle;
  }

  /**
   * @throws {PeerDmaError} `ERR_GROUP_NOT_VIABLE`, `ERR_GROUP_BUSY`, `ERR_PERMISSION`, `ERR_GROUP_OPEN`; for a group
   * that another process has opened, `ERR_INVALID_ARGUMENT` and `ERR_DEVICE_IN_USE`
   */
  static async open({ bdf, files }: RequestedDevice, id: number, sysfs: Sysfs): Promise<Group> {
    const file = files?.group;
    const handle = await convertErrors(
      () => (file === undefined ? NativeVfioGroup.open(id) : NativeVfioGroup.fromFd(file.fd, id)),
      (error) => (file === undefined ? groupUnavailable(bdf, id, error) : descriptorRefused('group', error, bdf)),
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

/** A container with guest memory mapped into it. @internal */
export class Container implements PlacedSpace {
  readonly name: string;
  readonly handle: NativeVfioContainer;
  readonly groups: Set<Group> = new Set();
  readonly target: Type1Target;
  readonly placement: Placement;
  readonly #memory: GuestMemory;
  /** The registration with guest memory, after {@link Container.create}. */
  mapper: DmaMapperHandle | undefined;
  #leaving = false;

  private constructor(name: string, handle: NativeVfioContainer, memory: GuestMemory, placement: Placement) {
    this.name = name;
    this.handle = handle;
    this.target = new Type1Target(handle, name);
    this.#memory = memory;
    this.placement = placement;
  }

  /**
   * Opens a container for its first group and maps all of guest memory into it. If it throws, everything is closed.
   *
   * @throws {PeerDmaError} `ERR_VFIO_UNAVAILABLE`, `ERR_PERMISSION`, `ERR_VFIO_UNSUPPORTED`,
   * `ERR_NO_INTERRUPT_REMAPPING`; the error of mapping guest memory
   */
  static async create(
    name: string,
    pci: RequestedDevice,
    first: Group,
    memory: GuestMemory,
    placement: Placement,
    sysfs: Sysfs,
  ): Promise<Container> {
    const handle = await openContainer(pci);
    const container = new Container(name, handle, memory, placement);
    try {
      const iommu = async (): Promise<void> => {
        await container.attach(first);
        await handle.setIommuAsync();
      };
      await convertErrors(iommu, (error) => iommuRefused(pci.bdf, error, sysfs.refusalFacts(pci)));
      container.target.limits(); // caches them for calls while memory is being pinned
      container.mapper = await joinPort(guestAddressSpaceOf(memory), container.target, placement.policy);
      return container;
    } catch (error) {
      await first.close(); // before the container, which cannot be closed with a group in it
      await container.#close();
      throw error;
    }
  }

  /** @throws {PeerDmaError} if the kernel does not accept the group together with the attached ones */
  async attach(group: Group): Promise<void> {
    await this.target.runBusy(() => nativeAsync(() => group.handle.attachAsync(this.handle)));
    this.groups.add(group);
  }

  hasGroup(id: number): boolean {
    return [...this.groups].some((group) => group.id === id && group.devices.size > 0);
  }

  /** Whether its last device is leaving. Then it is not a target of guest memory and accepts no new group. */
  get leaving(): boolean {
    return this.#leaving;
  }

  /**
   * Closes a group without devices. With the last one, unmaps everything and closes the container. If it throws, call
   * it again: it continues with the step that failed.
   */
  async release(group: Group): Promise<void> {
    if (group.devices.size > 0) return;
    if (this.groups.size === 1) {
      this.#leaving = true;
      await this.#leaveMemory();
    }
    await this.target.runBusy(() => group.close());
    if (this.#leaving) await this.#close();
    this.groups.delete(group);
  }

  /** The kernel removed all mappings with the last group, including those that it could not unmap before. */
  async #close(): Promise<void> {
    await nativeAsync(() => this.handle.closeAsync());
    await guestAddressSpaceOf(this.#memory).targetClosed(this.target);
  }

  /** Unmaps everything. Mappings that cannot be unmapped end with the container. */
  async #leaveMemory(): Promise<void> {
    try {
      await this.mapper?.remove();
    } catch (error) {
      if (!(error instanceof PeerDmaError && error.code === 'ERR_UNMAP_FAILED')) throw error;
    }
  }
}

function openContainer({ bdf, files }: RequestedDevice): Promise<NativeVfioContainer> {
  const file = files?.container;
  return convertErrors(
    () => (file === undefined ? NativeVfioContainer.open() : NativeVfioContainer.fromFd(file.fd)),
    (error) =>
      file === undefined
        ? containerUnavailable(error, files !== undefined)
        : descriptorRefused('container', error, bdf),
  );
}

/** Calls the native core and converts its errors. */
async function convertErrors<T>(
  call: () => T | Promise<T>,
  convert: (error: PeerDmaError) => PeerDmaError,
): Promise<T> {
  try {
    return await call();
  } catch (thrown) {
    const error = fromNative(thrown);
    throw error instanceof PeerDmaError ? convert(error) : error;
  }
}
