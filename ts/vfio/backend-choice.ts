/**
 * Which back end a container manager has, and why: what it was told, or with `auto` what the first device shows to be best.
 */
import type { PeerToPeer } from '../dma/target.ts';
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import type { GuestMemory } from '../guest/guest-memory.ts';
import type { Backend, BackendName, PlacedDevice } from './backend.ts';
import { IommufdBackend } from './iommufd/iommufd-backend.ts';
import type { Sysfs } from './sysfs.ts';
import { Type1Backend } from './type1/type1-backend.ts';
import type { RequestedDevice } from './vf-token.ts';

/** Why `auto` takes iommufd. @internal */
export const WHY_IOMMUFD = 'the kernel has iommufd, files of devices, and BARs as dma-bufs';

/** Why `auto` takes type1. @param missing what iommufd lacks @internal */
export function whyType1(missing: string): string {
  return `iommufd is no choice: ${missing}`;
}

/** @internal */
export class BackendChoice {
  readonly #memory: GuestMemory;
  readonly #peerToPeer: PeerToPeer;
  readonly #sysfs: Sysfs;
  #backend: Backend | undefined;
  #reason: string;

  /** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` */
  constructor(wanted: 'auto' | BackendName, memory: GuestMemory, peerToPeer: PeerToPeer, sysfs: Sysfs) {
    this.#memory = memory;
    this.#peerToPeer = peerToPeer;
    this.#sysfs = sysfs;
    if (wanted !== 'auto' && wanted !== 'type1' && wanted !== 'iommufd') {
      const text = `the back end is 'auto', 'type1' or 'iommufd', not ${valueText(wanted)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    }
    this.#reason = `the back end '${wanted}' was asked for`;
    if (wanted === 'auto') this.#reason = 'the first device that is opened shows what the kernel can do';
    else this.#backend = wanted === 'type1' ? this.#type1() : this.#iommufd();
  }

  /** `undefined` until it is decided. */
  get backend(): Backend | undefined {
    return this.#backend;
  }

  get reason(): string {
    return this.#reason;
  }

  /** Opens a device, and decides by the first. It stays decided: the BARs of one back end's devices are nothing to the other. */
  async open(pci: RequestedDevice): Promise<PlacedDevice> {
    if (this.#backend !== undefined) return this.#backend.open(pci);
    const iommufd = this.#iommufd();
    const opened = await iommufd.openIfComplete(pci);
    if (typeof opened !== 'string') {
      this.#backend = iommufd;
      this.#reason = WHY_IOMMUFD;
      return opened;
    }
    const type1 = this.#type1();
    const placed = await type1.open(pci);
    this.#backend = type1;
    this.#reason = whyType1(opened);
    return placed;
  }

  #type1(): Backend {
    return new Type1Backend(this.#memory, this.#peerToPeer, this.#sysfs);
  }

  #iommufd(): IommufdBackend {
    return new IommufdBackend(this.#memory, this.#peerToPeer, this.#sysfs);
  }
}
