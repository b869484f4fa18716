/**
 * An open VFIO device.
 */
import type { NativeVfioDevice } from '#native';
import { type AbortOptions, readSignal, runAbortable, throwIfAborted } from '../abort.ts';
import { readArray } from '../arguments.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError } from '../errors.ts';
import { retryDeviceMemoryOf, runWhileUnmappedEverywhere } from '../guest/device-reset.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { SharedFile } from '../memory/shared-file.ts';
import { native, nativeAsync } from '../native-call.ts';
import { newMemoryFile } from '../memory/memory-file.ts';
import { INSPECT, objectText } from '../object-text.ts';
import type { PhysicalFunction } from '../pci/physical-function.ts';
import type { VfioBackendName } from './backend.ts';
import { regionAccess } from './region-access.ts';
import { requireVfToken } from './vf-token.ts';
import type { DeviceMigration } from '../pci/migration/device-migration.ts';
import { VfioInterrupts } from './vfio-interrupts.ts';
import { VfioMigration } from './vfio-migration.ts';
import { VfioRegion } from './vfio-region.ts';

/** VFIO region index of config space; 0 to 6 are the BARs and the ROM (`linux/vfio.h`). */
const CONFIG_REGION = 7;

/** The owner of a device. @internal */
export interface DeviceOwner {
  /** The memory that is mapped into its IOMMU. */
  readonly memory: GuestMemory;
  /** The kernel interface, for `console.log`. */
  readonly backend?: VfioBackendName | undefined;
  /** Closes the device, and its group and address space if it was the last device in them. */
  close(device: VfioDevice): Promise<void>;
}

/** An open PCI device. Returned by {@link VfioContainerManager.open}. */
export class VfioDevice implements PhysicalFunction {
  /** PCI address, such as `0000:01:00.0`, or the UUID of a mediated device. */
  readonly bdf: string;
  readonly config: VfioRegion;
  readonly regions: readonly (VfioRegion | undefined)[];
  readonly interrupts: VfioInterrupts;
  readonly #device: NativeVfioDevice;
  readonly #owner: DeviceOwner;
  readonly #closing = new Closing();
  #closed = false;
  /** The memory of its BARs. @internal */
  readonly memory: SharedFile;
  /** `null` until it is read. */
  #migration: VfioMigration | undefined | null = null;
  /** The state of its memory when its mappings were last updated. */
  #mappedState: string;

  /** @internal */
  get nativeDevice(): NativeVfioDevice {
    return this.#device;
  }

  /**
   * @param hostAddresses host addresses of the BARs and the ROM
   * @internal
   */
  constructor(
    bdf: string,
    device: NativeVfioDevice,
    hostAddresses: readonly (bigint | undefined)[],
    owner: DeviceOwner,
  ) {
    this.bdf = bdf;
    this.#device = device;
    this.#owner = owner;
    const handle = native(() => device.memoryFile(), { bdf });
    this.memory = new SharedFile(handle, `vfio ${bdf}`);
    this.memory.device = {
      get accessible() {
        return device.memoryAccessible;
      },
      get revocations() {
        return device.revocations;
      },
      access: regionAccess(bdf, () => this.regions),
    };
    const file = newMemoryFile(this.memory);
    const region = (index: number, onWrite?: () => void) =>
      VfioRegion.open(bdf, index, device, file, hostAddresses[index], onWrite);
    const config = region(CONFIG_REGION, () => this.#configWritten());
    if (config === undefined) {
      throw new PeerDmaError(
        'ERR_NO_SUCH_REGION',
        `${bdf}: opening failed: it has no config space region. Check that it is a PCI device.`,
        {
          bdf,
        },
      );
    }
    this.config = config;
    this.regions = Array.from({ length: CONFIG_REGION }, (_, index) => region(index));
    this.interrupts = new VfioInterrupts(bdf, device);
    this.#mappedState = this.#memoryState();
  }

  get guestMemory(): GuestMemory {
    return this.#owner.memory;
  }

  /**
   * Its migration; `undefined` if its driver does not support it.
   *
   * @throws {PeerDmaError} `ERR_CLOSED`, `ERR_SYSTEM` when it is read for the first time
   */
  get migration(): DeviceMigration | undefined {
    if (this.#migration === null) this.#migration = VfioMigration.of(this.bdf, this.#device);
    return this.#migration;
  }

  /**
   * Resets the function, on a worker thread. Unmaps its BARs from all IOMMUs before, and maps them again afterwards.
   *
   * @param options.signal aborts the reset before the hardware is reset. If it is aborted later, the reset is completed
   * and its BARs are mapped again before the promise rejects. Default: none
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` if the device cannot be reset on its own; `ERR_BAD_CONFIG_SPACE` if
   * it did not return from the reset; `ERR_UNMAP_FAILED`: it was not reset
   * @throws the reason of the signal
   */
  async reset(options: AbortOptions = {}): Promise<void> {
    const signal = readSignal(options);
    const reset = async (): Promise<void> => {
      throwIfAborted(signal);
      await nativeAsync(() => this.#device.reset(), { bdf: this.bdf });
    };
    await runAbortable(signal, (onTurn) => this.#runWhileUnmapped([this], reset, onTurn));
  }

  /**
   * Resets its bus or slot with every function on it, on a worker thread. Keeps config space and connected interrupts.
   * Unmaps the functions' BARs from all IOMMUs before, and maps them again afterwards.
   *
   * @param others open devices of this process. They must include all that the reset affects; others are unchanged
   * @param options.signal as for {@link VfioDevice.reset}
   * @returns this device and those of the others that were reset
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` if the device has no such reset, or the reset affects a device that
   * is not among these (the message names it) or not bound to VFIO. `ERR_BAD_CONFIG_SPACE` if a device did not return
   * from the reset. `ERR_INVALID_ARGUMENT` for an object that is not an open VFIO device
   * @throws the reason of the signal
   */
  async hotReset(others: readonly PhysicalFunction[], options: AbortOptions = {}): Promise<readonly VfioDevice[]> {
    const signal = readSignal(options);
    const devices = VfioDevice.#requireDevices(others);
    const details = { bdf: this.bdf };
    const affected = this.#resetWithIt();
    const missing = affected.filter((bdf) => bdf !== this.bdf && !devices.some((device) => device.bdf === bdf));
    if (missing.length > 0) {
      throw new PeerDmaError(
        'ERR_RESET_UNSUPPORTED',
        `a reset of the bus of ${this.bdf} would reset ${missing.join(', ')} too. Bind these to vfio-pci, open ` +
          'them, and pass them as the other functions: the kernel rejects a reset of a device that the host uses ' +
          'or that is not open',
        details,
      );
    }
    const resetToo = devices.filter((device) => device !== this && affected.includes(device.bdf));
    const natives = resetToo.map((device) => device.#device);
    const reset = async (): Promise<void> => {
      throwIfAborted(signal);
      if (this.#resetWithIt().some((bdf) => !affected.includes(bdf))) {
        throw new PeerDmaError('ERR_SYSTEM', `a device was added to the bus of ${this.bdf}. Try again`, details);
      }
      await nativeAsync(() => this.#device.hotReset(natives), details);
    };
    await runAbortable(signal, (onTurn) => this.#runWhileUnmapped([this, ...resetToo], reset, onTurn));
    return [this, ...resetToo];
  }

  /**
   * Sets the VF token of a physical function. Opening one of its virtual functions requires the token from then on;
   * open ones stay open.
   *
   * @param vfToken a UUID
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` if it is not a physical function with SR-IOV; `ERR_INVALID_ARGUMENT`,
   * `ERR_CLOSED`
   */
  setVfToken(vfToken: string): void {
    const token = requireVfToken(vfToken);
    native(() => this.#device.setVfToken(token), { bdf: this.bdf });
  }

  /**
   * Removes its BARs from guest memory, and so from every IOMMU, then closes the device. The last device in a group or
   * container closes that too. Idempotent.
   *
   * @throws {PeerDmaError} the error of a target or the kernel; the device is still open then, and `close` can be
   * retried
   */
  close(): Promise<void> {
    return this.#closing.once(() => this.#owner.close(this));
  }

  /** As {@link VfioDevice.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Closes the device only, not its group and container. @internal */
  async closeDevice(): Promise<void> {
    await nativeAsync(() => this.#device.closeAsync(), { bdf: this.bdf });
    this.#closed = true;
    this.interrupts.closed();
    this.memory.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'VfioDevice', () => {
      const { backend } = this.#owner;
      const properties = backend === undefined ? [] : [`backend: '${backend}'`];
      return [this.bdf, ...properties, this.#closed ? 'closed' : 'open'];
    });
  }

  /** Returns the PCI addresses of all functions that a reset of its bus or slot resets. */
  #resetWithIt(): string[] {
    return native(() => this.#device.hotResetInfo(), { bdf: this.bdf });
  }

  async #runWhileUnmapped(devices: readonly VfioDevice[], act: () => Promise<void>, onTurn: () => void): Promise<void> {
    const files = devices.map(({ memory }) => memory);
    await runWhileUnmappedEverywhere(
      files,
      act,
      devices.map((device) => guestAddressSpaceOf(device.#owner.memory)),
      onTurn,
    );
    for (const device of devices) device.#mappedState = device.#memoryState();
  }

  /** After a write to config space: IOMMUs may have lost mappings of its memory, or can map it now. */
  #configWritten(): void {
    const state = this.#memoryState();
    if (state === this.#mappedState) return;
    this.#mappedState = state;
    retryDeviceMemoryOf([this.memory]);
  }

  #memoryState(): string {
    const { memoryAccessible, revocations } = this.#device;
    return `${memoryAccessible} ${revocations}`;
  }

  static #requireDevices(functions: readonly PhysicalFunction[]): VfioDevice[] {
    return readArray<unknown>(functions, 'the other functions').map((other) => {
      if (typeof other === 'object' && other !== null && #device in other) return other;
      const text = 'the other functions of a reset are open VFIO devices of this process';
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    });
  }
}
