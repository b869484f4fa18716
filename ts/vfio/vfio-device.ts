/**
 * A device that VFIO has opened.
 */
import type { NativeVfioDevice } from '#native';
import { readArray } from '../arguments.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError } from '../errors.ts';
import { giveMissingOf } from '../guest/spaces.ts';
import { withoutMappingsOf } from '../guest/device-reset.ts';
import { type GuestMemory, addressSpaceOf } from '../guest/guest-memory.ts';
import { declareDevice } from '../memory/device-state.ts';
import { native, nativeAsync } from '../native-call.ts';
import { type MemoryFile, wrapNativeFile } from '../memory/memory-file.ts';
import { recordMemoryOf } from '../pci/memory-of-function.ts';
import type { PhysicalFunction } from '../pci/physical-function.ts';
import { regionAccess } from './region-access.ts';
import { requireVfToken } from './vf-token.ts';
import { VfioInterrupts } from './vfio-interrupts.ts';
import { VfioRegion } from './vfio-region.ts';

/** VFIO region index of config space; 0 to 6 are the BARs and the ROM (`linux/vfio.h`). */
const CONFIG_REGION = 7;

/** Who has opened a device. @internal */
export interface DeviceKeeper {
  /** What its IOMMUs follow. */
  readonly memory: GuestMemory;
  /** Closes the device and gives back what it was in. */
  close(device: VfioDevice): Promise<void>;
}

/** A PCI device in the hands of this process. Made by {@link VfioContainerManager.open}. */
export class VfioDevice implements PhysicalFunction {
  readonly bdf: string;
  readonly config: VfioRegion;
  readonly regions: readonly (VfioRegion | undefined)[];
  readonly interrupts: VfioInterrupts;
  readonly #device: NativeVfioDevice;
  readonly #keeper: DeviceKeeper;
  readonly #closing = new Closing();
  /** The file behind its BARs. @internal */
  readonly file: MemoryFile;
  /** Its memory as it was when its IOMMUs were last seen to. */
  #seen: string;

  /**
   * @param hostAddresses where the host has placed the BARs and the ROM
   * @internal
   */
  constructor(
    bdf: string,
    device: NativeVfioDevice,
    hostAddresses: readonly (bigint | undefined)[],
    keeper: DeviceKeeper,
  ) {
    this.bdf = bdf;
    this.#device = device;
    this.#keeper = keeper;
    this.file = wrapNativeFile(
      native(() => device.memoryFile(), { device: bdf }),
      `vfio ${bdf}`,
    );
    declareDevice(this.file, {
      get accessible() {
        return device.memoryAccessible;
      },
      get revocations() {
        return device.revocations;
      },
      access: regionAccess(bdf, () => this.regions),
    });
    const region = (index: number, onWrite?: () => void) =>
      VfioRegion.open(bdf, index, device, this.file, hostAddresses[index], onWrite);
    const config = region(CONFIG_REGION, () => this.#configWritten());
    if (config === undefined) {
      throw new PeerDmaError('ERR_NO_SUCH_REGION', `${bdf} shows no config space: is it a PCI device?`, {
        device: bdf,
      });
    }
    this.config = config;
    this.regions = Array.from({ length: CONFIG_REGION }, (_, index) => region(index));
    this.interrupts = new VfioInterrupts(bdf, device);
    this.#seen = this.#memoryState();
    recordMemoryOf(this, keeper.memory);
  }

  /**
   * Resets the function, on a worker thread. What IOMMUs map of its BARs is unmapped before, and mapped again after it.
   *
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` where the device has no way of being reset on its own;
   * `ERR_BAD_CONFIG_SPACE` where it did not return from the reset; `ERR_UNMAP_FAILED`: it was not reset
   */
  async reset(): Promise<void> {
    await this.#withoutMappings([this], () => nativeAsync(() => this.#device.reset(), { device: this.bdf }));
  }

  /**
   * Resets its bus or slot, and with it every function there, on a worker thread. Config space is as before, afterwards, and
   * interrupts are connected as before. What IOMMUs map of the functions' BARs is unmapped before, and mapped again after it.
   *
   * @param others devices of this process: those that are reset with this one have to be among them. What the reset does
   * not reach stays as it is
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` where there is no such reset, or it reaches a device that is not among
   * these (the message names it), or not VFIO's; `ERR_BAD_CONFIG_SPACE` where a device did not return from it;
   * `ERR_INVALID_ARGUMENT` for what is no opened VFIO device
   */
  async hotReset(others: readonly PhysicalFunction[]): Promise<readonly VfioDevice[]> {
    const devices = VfioDevice.#requireDevices(others);
    const details = { device: this.bdf };
    const reached = this.#reached();
    const missing = reached.filter((bdf) => bdf !== this.bdf && !devices.some((device) => device.bdf === bdf));
    if (missing.length > 0) {
      throw new PeerDmaError(
        'ERR_RESET_UNSUPPORTED',
        `a reset of the bus of ${this.bdf} would reset ${missing.join(', ')} as well: open what of these is bound to vfio-pci, and say so with the other functions; of what the host uses or nobody has, the kernel resets none`,
        details,
      );
    }
    const resetToo = devices.filter((device) => device !== this && reached.includes(device.bdf));
    const natives = resetToo.map((device) => device.#device);
    await this.#withoutMappings([this, ...resetToo], () => {
      if (this.#reached().some((bdf) => !reached.includes(bdf))) {
        throw new PeerDmaError('ERR_SYSTEM', `other devices came to be on the bus of ${this.bdf}: try again`, details);
      }
      return nativeAsync(() => this.#device.hotReset(natives), details);
    });

    return [this, ...resetToo];
  }

  /**
   * Sets the VF token of a physical function. Opening one of its virtual functions requires the token from now on;
   * virtual functions that are open stay open.
   *
   * @param vfToken a UUID
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` for what is not a physical function with SR-IOV; `ERR_INVALID_ARGUMENT`,
   * `ERR_CLOSED`
   */
  setVfToken(vfToken: string): void {
    const token = requireVfToken(vfToken);
    native(() => this.#device.setVfToken(token), { device: this.bdf });
  }

  /**
   * Takes its BARs out of guest memory, and so out of every IOMMU, then closes the device; the last one closes its group
   * and container too. Idempotent.
   *
   * @throws {PeerDmaError} what a target or the kernel said; the device is still open then, and `close` can be tried again
   */
  close(): Promise<void> {
    return this.#closing.once(() => this.#keeper.close(this));
  }

  /** As {@link VfioDevice.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Closes the device and nothing around it. @internal */
  async closeDevice(): Promise<void> {
    await nativeAsync(() => this.#device.closeAsync(), { device: this.bdf });
    this.interrupts.closed();
    this.file.close();
  }

  /** PCI addresses of what a reset of its bus or slot would reset. */
  #reached(): string[] {
    return native(() => this.#device.hotResetInfo(), { device: this.bdf });
  }

  async #withoutMappings(devices: readonly VfioDevice[], act: () => Promise<void>): Promise<void> {
    const files = devices.map(({ file }) => file);
    await withoutMappingsOf(
      files,
      act,
      devices.map((device) => addressSpaceOf(device.#keeper.memory)),
    );
    for (const device of devices) device.#seen = device.#memoryState();
  }

  /** Config space was written: IOMMUs may have lost its memory by that, or may be able to have it now. */
  #configWritten(): void {
    const now = this.#memoryState();
    if (now === this.#seen) return;
    this.#seen = now;
    giveMissingOf([this.file]);
  }

  #memoryState(): string {
    const { memoryAccessible, revocations } = this.#device;
    return `${memoryAccessible} ${revocations}`;
  }

  static #requireDevices(functions: readonly PhysicalFunction[]): VfioDevice[] {
    return readArray<unknown>(functions, 'the other functions').map((other) => {
      if (typeof other === 'object' && other !== null && #device in other) return other;
      const text = 'what is reset with a VFIO device is a VFIO device of this process';
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    });
  }
}
