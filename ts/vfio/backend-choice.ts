/**
 * Chooses the back end of a container manager. It is the requested one, or with `auto` the best one for the first
 * device.
 */
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import type { GuestMemory } from '../guest/guest-memory.ts';
import type { Backend, VfioBackendName, PlacedDevice } from './backend.ts';
import { IommufdBackend } from './iommufd/iommufd-backend.ts';
import type { Placement } from './placement.ts';
import type { Sysfs } from './sysfs.ts';
import { Type1Backend } from './type1/type1-backend.ts';
import type { RequestedDevice } from './vf-token.ts';

/** Why `auto` chooses iommufd. @internal */
export const WHY_IOMMUFD = 'the kernel has iommufd, device files, and BARs as dma-bufs';

/** Why `auto` chooses type1. @param missing the feature that iommufd lacks @internal */
export function whyType1(missing: string): string {
  return `iommufd cannot be used: ${missing}`;
}

/** @internal */
export class BackendChoice {
  readonly #memory: GuestMemory;
  readonly #sysfs: Sysfs;
  #backend: Backend | undefined;
  #reason: string;

  /** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` */
  constructor(requested: 'auto' | VfioBackendName, memory: GuestMemory, sysfs: Sysfs) {
    this.#memory = memory;
    this.#sysfs = sysfs;
    if (requested !== 'auto' && requested !== 'type1' && requested !== 'iommufd') {
      const text = `the back end is 'auto', 'type1' or 'iommufd', not ${valueText(requested)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    }
    this.#reason = `the back end '${requested}' was requested`;
    if (requested === 'auto') this.#reason = 'the back end is chosen when the first device is opened';
    else this.#backend = requested === 'type1' ? this.#type1() : this.#iommufd();
  }

  /** `undefined` until it is chosen. */
  get backend(): Backend | undefined {
    return this.#backend;
  }

  get reason(): string {
    return this.#reason;
  }

  /**
   * Opens a device. The first one that opens determines the back end for all: one back end cannot map the BARs of the
   * other's devices.
   */
  async open(pci: RequestedDevice, placement: Placement): Promise<PlacedDevice> {
    if (this.#backend !== undefined) return this.#backend.open(pci, placement);
    const iommufd = this.#iommufd();
    const opened = await iommufd.openIfComplete(pci, placement);
    if (typeof opened !== 'string') {
      this.#backend = iommufd;
      this.#reason = WHY_IOMMUFD;
      return opened;
    }
    const type1 = this.#type1();
    const placed = await type1.open(pci, placement);
    this.#backend = type1;
    this.#reason = whyType1(opened);
    return placed;
  }

  #type1(): Backend {
    return new Type1Backend(this.#memory, this.#sysfs);
  }

  #iommufd(): IommufdBackend {
    return new IommufdBackend(this.#memory, this.#sysfs);
  }
}
