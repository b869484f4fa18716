/**
 * An IOAS that follows guest memory, and the devices attached to it.
 */
import type { NativeIoas, NativeIommufd, NativeVfioDevice } from '#native';
import type { PeerToPeer } from '../../dma/target.ts';
import { PeerDmaError } from '../../errors.ts';
import { type DmaMapperHandle, joinPort } from '../../guest/dma-mapper-client.ts';
import { type GuestMemory, addressSpaceOf } from '../../guest/guest-memory.ts';
import { native, nativeAsync } from '../../native-call.ts';
import { IommufdTarget } from './iommufd-target.ts';

/** @internal */
export class IoAddressSpace {
  readonly name: string;
  /** PCI addresses of its devices, and the groups they are in. */
  readonly devices: Map<string, number> = new Map();
  readonly target: IommufdTarget;
  readonly #ioas: NativeIoas;
  readonly #memory: GuestMemory;
  /** How the address space follows guest memory, once it does. */
  mapper: DmaMapperHandle | undefined;
  #leaving = false;

  constructor(name: string, iommufd: NativeIommufd, memory: GuestMemory) {
    this.name = name;
    this.#ioas = native(() => iommufd.newIoas());
    this.target = new IommufdTarget(this.#ioas, name, iommufd.mapsFiles);
    this.#memory = memory;
  }

  /**
   * Attaches a device: what is mapped here it reaches from then on.
   *
   * @throws {PeerDmaError} `ERR_DEVICE_ATTACH` where the kernel does not accept it beside those that are here
   */
  async attach(handle: NativeVfioDevice, bdf: string, group: number): Promise<void> {
    const details = { device: bdf, target: this.name };
    await this.target.during(() => nativeAsync(() => handle.attach(this.#ioas), details));
    this.devices.set(bdf, group);
  }

  /**
   * Maps all of guest memory, once the first device is attached: before that the kernel neither pins nor checks what it maps.
   *
   * @throws {PeerDmaError} what the replay said; nothing is mapped then
   */
  async follow(peerToPeer: PeerToPeer): Promise<void> {
    this.target.limits(); // so that there is an answer while memory is being pinned
    this.mapper = await joinPort(addressSpaceOf(this.#memory), this.target, peerToPeer);
  }

  get mappingCount(): number {
    return this.#ioas.mappingCount;
  }

  /** Whether its last device has gone: it no longer follows guest memory, and takes no new device. */
  get leaving(): boolean {
    return this.#leaving;
  }

  /** A device is about to go: with the last one all is unmapped, which takes long, before its file closes, which would unpin it at once. */
  async prepareRelease(): Promise<void> {
    if (this.devices.size === 1) await this.#withdraw();
  }

  /**
   * A device is gone; with the last one the address space goes, everything unmapped before. If it throws, it can be called
   * again, and goes on where it was.
   */
  async release(bdf: string): Promise<void> {
    this.devices.delete(bdf);
    if (this.devices.size > 0) return;
    await this.#withdraw();
    await nativeAsync(() => this.#ioas.closeAsync(), { target: this.name });
    await addressSpaceOf(this.#memory).targetClosed(this.target);
  }

  /** Unmaps everything. What can't be unmapped goes with the address space. */
  async #withdraw(): Promise<void> {
    this.#leaving = true;
    try {
      await this.mapper?.remove();
    } catch (error) {
      if (!(error instanceof PeerDmaError && error.code === 'ERR_UNMAP_FAILED')) throw error;
    }
  }
}
