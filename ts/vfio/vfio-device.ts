/**
 * A device that VFIO has opened.
 */
import type { NativeVfioDevice } from '#native';
import { PeerDmaError } from '../errors.ts';
import { native } from '../native-call.ts';
import { type MemoryFile, wrapNativeFile } from '../memory/memory-file.ts';
import type { PhysicalFunction } from '../pci/physical-function.ts';
import { VfioRegion } from './vfio-region.ts';

/** VFIO region index of config space; 0 to 6 are the BARs and the ROM (`linux/vfio.h`). */
const CONFIG_REGION = 7;

/** A PCI device in the hands of this process. Made by {@link VfioContainerManager.open}. */
export class VfioDevice implements PhysicalFunction {
  readonly bdf: string;
  readonly config: VfioRegion;
  readonly regions: readonly (VfioRegion | undefined)[];
  readonly #device: NativeVfioDevice;
  readonly #onClose: (device: VfioDevice) => Promise<void>;
  #closing: Promise<void> | undefined;
  /** The file behind its BARs. @internal */
  readonly file: MemoryFile;

  /** @internal */
  constructor(bdf: string, device: NativeVfioDevice, onClose: (device: VfioDevice) => Promise<void>) {
    this.bdf = bdf;
    this.#device = device;
    this.#onClose = onClose;
    this.file = wrapNativeFile(
      native(() => device.memoryFile(), { device: bdf }),
      `vfio ${bdf}`,
    );
    const region = (index: number) => VfioRegion.open(bdf, index, device, this.file);
    const config = region(CONFIG_REGION);
    if (config === undefined) {
      throw new PeerDmaError('ERR_NO_SUCH_REGION', `${bdf} shows no config space: is it a PCI device?`, {
        device: bdf,
      });
    }
    this.config = config;
    this.regions = Array.from({ length: CONFIG_REGION }, (_, index) => region(index));
  }

  /**
   * Resets the function.
   *
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` where the device has no way of being reset on its own
   */
  async reset(): Promise<void> {
    native(() => this.#device.reset(), { device: this.bdf });
  }

  /**
   * Takes its BARs out of guest memory, and so out of every IOMMU, then closes the device; the last one closes its group
   * and container too. Idempotent.
   *
   * @throws {PeerDmaError} what a target or the kernel said; the device is still open then, and `close` can be tried again
   */
  close(): Promise<void> {
    this.#closing ??= this.#onClose(this).catch((error: unknown) => {
      this.#closing = undefined;
      throw error;
    });
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Closes the device and nothing around it. @internal */
  closeDevice(): void {
    native(() => this.#device.close(), { device: this.bdf });
    this.file.close();
  }
}
