/**
 * An IOAS with guest memory mapped into it, and its devices.
 */
import type { NativeIoas, NativeIommufd, NativeVfioDevice } from '#native';
import { PeerDmaError } from '../../errors.ts';
import { type DmaMapperHandle, joinPort } from '../../guest/dma-mapper-client.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../../guest/guest-memory.ts';
import { native, nativeAsync } from '../../native-call.ts';
import type { PlacedSpace, Placement } from '../placement.ts';
import { IommufdTarget } from './iommufd-target.ts';

/** @internal */
export class Ioas implements PlacedSpace {
  readonly name: string;
  /** The group of each attached device, by PCI address. */
  readonly devices: Map<string, number> = new Map();
  readonly target: IommufdTarget;
  readonly placement: Placement;
  readonly #ioas: NativeIoas;
  readonly #memory: GuestMemory;
  /** The registration with guest memory, after {@link Ioas.join}. */
  mapper: DmaMapperHandle | undefined;
  #leaving = false;

  constructor(name: string, iommufd: NativeIommufd, memory: GuestMemory, placement: Placement) {
    this.name = name;
    this.#ioas = native(() => iommufd.newIoas());
    this.target = new IommufdTarget(this.#ioas, name, iommufd.mapsFiles);
    this.#memory = memory;
    this.placement = placement;
  }

  /**
   * Attaches a device, which can access all mapped memory from then on.
   *
   * @throws {PeerDmaError} `ERR_DEVICE_ATTACH` if the kernel does not accept it together with the attached ones
   */
  async attach(handle: NativeVfioDevice, bdf: string, group: number): Promise<void> {
    const details = { bdf, target: this.name };
    await this.target.runBusy(() => nativeAsync(() => handle.attach(this.#ioas), details));
    this.devices.set(bdf, group);
  }

  /**
   * Maps all of guest memory. Requires an attached device: without one, the kernel neither pins nor checks mappings.
   *
   * @throws {PeerDmaError} the error of mapping guest memory; nothing is mapped then
   */
  async join(): Promise<void> {
    this.target.limits(); // caches them for calls while memory is being pinned
    this.mapper = await joinPort(guestAddressSpaceOf(this.#memory), this.target, this.placement.policy);
  }

  hasGroup(id: number): boolean {
    return [...this.devices.values()].includes(id);
  }

  get mappingCount(): number {
    return this.#ioas.mappingCount;
  }

  /** Whether its last device is leaving. Then it is not a target of guest memory and accepts no new device. */
  get leaving(): boolean {
    return this.#leaving;
  }

  /**
   * Unmaps everything if the last device is about to leave. Unmapping takes long, and closing the device's file would
   * unpin all memory at once.
   */
  async prepareRelease(): Promise<void> {
    if (this.devices.size === 1) await this.#leaveMemory();
  }

  /**
   * Removes a device that was closed. With the last one, unmaps everything and closes the address space. If it throws,
   * call it again: it continues with the step that failed.
   */
  async release(bdf: string): Promise<void> {
    this.devices.delete(bdf);
    if (this.devices.size > 0) return;
    await this.#leaveMemory();
    await nativeAsync(() => this.#ioas.closeAsync(), { target: this.name });
    await guestAddressSpaceOf(this.#memory).targetClosed(this.target);
  }

  /** Unmaps everything. Mappings that cannot be unmapped end with the address space. */
  async #leaveMemory(): Promise<void> {
    this.#leaving = true;
    try {
      await this.mapper?.remove();
    } catch (error) {
      if (!(error instanceof PeerDmaError && error.code === 'ERR_UNMAP_FAILED')) throw error;
    }
  }
}
