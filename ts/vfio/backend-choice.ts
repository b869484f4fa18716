/**
 * Chooses the back end of a container manager. It is the requested one, or with `auto` the best one for the first
 * device.
 */
import { NativeIommufd } from '#native';
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import type { GuestMemory } from '../guest/guest-memory.ts';
import type { Backend, VfioBackendName, PlacedDevice } from './backend.ts';
import { fromNative } from '../native-call.ts';
import { type DescriptorSource, descriptorNumber } from '../owned-descriptor.ts';
import type { HandedFiles } from './handed-device.ts';
import { IommufdBackend } from './iommufd/iommufd-backend.ts';
import type { Placement } from './placement.ts';
import { descriptorRefused } from './opening-errors.ts';
import type { Sysfs } from './sysfs.ts';
import { Type1Backend } from './type1/type1-backend.ts';
import type { RequestedDevice } from './vf-token.ts';

/** Why `auto` chooses iommufd. @internal */
export const WHY_IOMMUFD = 'the kernel has iommufd, device files, and BARs as dma-bufs';

/** Why `auto` chooses iommufd by a mediated device. */
const WHY_IOMMUFD_MEDIATED = 'the kernel has iommufd and device files, and a mediated device has no BARs to export';

/** Why `auto` chooses type1. @param missing the feature that iommufd lacks @internal */
export function whyType1(missing: string): string {
  return `iommufd cannot be used: ${missing}`;
}

/** @internal */
export class BackendChoice {
  readonly #memory: GuestMemory;
  readonly #sysfs: Sysfs;
  /** The iommufd of another process, if one was passed. */
  readonly #handed: NativeIommufd | undefined;
  #backend: Backend | undefined;
  #reason: string;

  /**
   * @param iommufd an open `/dev/iommu`, which is duplicated
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
   */
  constructor(requested: 'auto' | VfioBackendName, memory: GuestMemory, sysfs: Sysfs, iommufd?: DescriptorSource) {
    this.#memory = memory;
    this.#sysfs = sysfs;
    if (requested !== 'auto' && requested !== 'type1' && requested !== 'iommufd') {
      const text = `the back end is 'auto', 'type1' or 'iommufd', not ${valueText(requested)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    }
    this.#reason = `the back end '${requested}' was requested`;
    if (iommufd !== undefined) {
      if (requested === 'type1') {
        throw new PeerDmaError('ERR_INVALID_ARGUMENT', "the back end 'type1' uses no iommufd. Pass one of the two.");
      }
      this.#handed = takeIommufd(iommufd);
      this.#reason = 'an iommufd was passed';
      this.#backend = this.#iommufd();
    } else if (requested === 'auto') this.#reason = 'the back end is chosen when the first device is opened';
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
    if (pci.files !== undefined) return this.#openHanded(pci, pci.files, placement);
    if (this.#backend !== undefined) return this.#backend.open(pci, placement);
    const iommufd = this.#iommufd();
    const opened = await iommufd.openIfComplete(pci, placement);
    if (typeof opened !== 'string') {
      this.#backend = iommufd;
      this.#reason = pci.isMediated === true ? WHY_IOMMUFD_MEDIATED : WHY_IOMMUFD;
      return opened;
    }
    const type1 = this.#type1();
    const placed = await type1.open(pci, placement);
    this.#backend = type1;
    this.#reason = whyType1(opened);
    return placed;
  }

  /** Ends the use of the iommufd that was passed, after all devices are closed. */
  close(): void {
    this.#handed?.close();
  }

  /** Opens a device whose files determine the back end. */
  async #openHanded(pci: RequestedDevice, { cdev }: HandedFiles, placement: Placement): Promise<PlacedDevice> {
    const needed = cdev === undefined ? 'type1' : 'iommufd';
    const backend = this.#backend ?? (needed === 'type1' ? this.#type1() : this.#iommufd());
    if (backend.name !== needed) {
      const given = cdev === undefined ? 'group' : 'cdev';
      const reason = `the back end is '${backend.name}' (${this.#reason}), and "${given}" is for '${needed}'`;
      const remedy = `Pass "${needed === 'type1' ? 'cdev' : 'group'}", or use another container manager`;
      const text = `${pci.bdf}: opening by descriptors failed: ${reason}. ${remedy}.`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf: pci.bdf });
    }
    const placed = await backend.open(pci, placement);
    if (this.#backend === undefined)
      this.#reason = `the first device was passed by its ${cdev ? 'own' : "group's"} file`;
    this.#backend = backend;
    return placed;
  }

  #type1(): Backend {
    return new Type1Backend(this.#memory, this.#sysfs);
  }

  #iommufd(): IommufdBackend {
    return new IommufdBackend(this.#memory, this.#sysfs, this.#handed);
  }
}

function takeIommufd(source: DescriptorSource): NativeIommufd {
  const fd = descriptorNumber(source, 'iommufd');
  try {
    return NativeIommufd.fromFd(fd);
  } catch (thrown) {
    const error = fromNative(thrown);
    throw error instanceof PeerDmaError ? descriptorRefused('iommufd', error) : error;
  }
}
