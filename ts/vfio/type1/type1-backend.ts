/**
 * The type1 back end: VFIO groups in containers of type1v2.
 */
import { hex } from '../../address-range.ts';
import type { DirtyTracker } from '../../dma/dirty-pages.ts';
import { PeerDmaError } from '../../errors.ts';
import type { DmaMapperHandle } from '../../guest/dma-mapper-client.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../../guest/guest-memory.ts';
import { fromNative } from '../../native-call.ts';
import { deviceRefused, noMemoryToAttach } from '../opening-errors.ts';
import type { Backend, ContainerSnapshot, PlacedDevice } from '../backend.ts';
import { type Placement, candidateSpaces, placementSnapshot, refusedByNamed } from '../placement.ts';
import { type Sysfs, groupOf } from '../sysfs.ts';
import { type RequestedDevice, nameWithToken } from '../vf-token.ts';
import { Container, Group } from './container.ts';

interface PlacedGroup {
  readonly container: Container;
  readonly group: Group;
}

/** Number of containers so far in all managers, so that names are unique in the process. */
let containers = 0;

/** @internal */
export class Type1Backend implements Backend {
  readonly name = 'type1';
  readonly #memory: GuestMemory;
  readonly #sysfs: Sysfs;
  readonly #containers = new Set<Container>();

  constructor(memory: GuestMemory, sysfs: Sysfs) {
    this.#memory = memory;
    this.#sysfs = sysfs;
  }

  async open(pci: RequestedDevice, placement: Placement): Promise<PlacedDevice> {
    const { bdf } = pci;
    const { container, group } = await this.#place(pci, placement);
    try {
      const handle = await group.handle.openDeviceAsync(nameWithToken(pci));
      group.devices.add(bdf);
      const leave = (): Promise<void> => {
        group.devices.delete(bdf);
        return this.#leave(container, group);
      };
      return { handle, prepareLeave: async () => {}, leave };
    } catch (thrown) {
      await this.#leave(container, group);
      const error = fromNative(thrown);
      throw error instanceof PeerDmaError ? deviceRefused(bdf, error, this.#sysfs.refusalFacts(pci)) : error;
    }
  }

  inspect(): ContainerSnapshot[] {
    const live = [...this.#containers].filter(({ leaving }) => !leaving);
    return live.map((container) => {
      const { name, groups, placement } = container;
      const { pageSize, iovaRanges, dmaAvailable } = container.target.limits();
      return {
        name,
        backend: 'type1',
        pageSize: hex(pageSize),
        iovaRanges: iovaRanges.map(({ start, end }) => ({ start: hex(start), end: hex(end) })),
        mappings: container.handle.mappingCount,
        ...(dmaAvailable === undefined ? {} : { dmaAvailable }),
        mapsFiles: false,
        ...placementSnapshot(placement),
        groups: [...groups].map(({ id, devices }) => ({ id, devices: [...devices] })),
      };
    });
  }

  mappers(): DmaMapperHandle[] {
    return [...this.#containers].flatMap(({ mapper }) => mapper ?? []);
  }

  trackers(): DirtyTracker[] {
    return [...this.#containers].filter(({ leaving }) => !leaving).map(({ target }) => target);
  }

  /** Returns the device's group in its container. Opens the group first if necessary. */
  async #place(pci: RequestedDevice, placement: Placement): Promise<PlacedGroup> {
    const id = groupOf(pci);
    candidateSpaces(this.#containers, { bdf: pci.bdf, group: id }, placement); // before anything is opened
    for (const container of this.#containers) {
      for (const group of container.groups) {
        if (group.id !== id) continue;
        if (group.devices.size > 0) return { container, group };
        await this.#leave(container, group); // an earlier close of this group failed
      }
    }
    const group = await Group.open(pci, id, this.#sysfs);
    try {
      const joined = await this.#join(pci, group, placement);
      return { container: joined ?? (await this.#newContainer(pci, group, placement)), group };
    } catch (error) {
      await group.close();
      throw error;
    }
  }

  /**
   * Attaches a group to an existing container. Without memory in the kernel it fails: a new container would pin all of
   * guest memory a second time.
   *
   * @returns the container, if one accepts the group
   * @throws {PeerDmaError} as {@link candidateSpaces}; `ERR_DEVICE_ATTACH` if the kernel has no memory, or the named
   *   container does not accept it
   */
  async #join({ bdf }: RequestedDevice, group: Group, placement: Placement): Promise<Container | undefined> {
    const space = guestAddressSpaceOf(this.#memory);
    for (const container of candidateSpaces(this.#containers, { bdf, group: group.id }, placement)) {
      try {
        // The mappings must not change during the attach.
        await space.betweenChanges(() => container.attach(group));
        return container;
      } catch (error) {
        // The IOMMUs are incompatible, or memory is mapped at reserved addresses of the device: try the next one.
        if (!(error instanceof PeerDmaError && error.code === 'ERR_GROUP_ATTACH')) throw error;
        if (error.errno === 'ENOMEM') throw noMemoryToAttach(bdf, error);
        if (placement.addressSpace !== undefined) throw refusedByNamed(bdf, container, error);
      }
    }
    return undefined;
  }

  async #newContainer(pci: RequestedDevice, group: Group, placement: Placement): Promise<Container> {
    const name = `vfio-type1:${containers++}`;
    const container = await Container.create(name, pci, group, this.#memory, placement, this.#sysfs);
    this.#containers.add(container);
    return container;
  }

  async #leave(container: Container, group: Group): Promise<void> {
    await container.release(group);
    if (container.groups.size === 0) this.#containers.delete(container);
  }
}
