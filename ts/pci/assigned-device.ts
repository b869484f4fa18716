/**
 * A physical PCI function assigned to a guest.
 *
 * It has config space, BARs that are windows of guest memory, and interrupts.
 */
import { type AbortOptions, readSignal, runAbortable } from '../abort.ts';
import { type AddressRange, hex } from '../address-range.ts';
import { readArray, readOptions, requireBytes } from '../arguments.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError } from '../errors.ts';
import type { GuestMemory } from '../guest/guest-memory.ts';
import type { BarsOptions } from './bar-options.ts';
import type { BarTrap, ConfigMirror } from './bar-quirks.ts';
import { type BarSnapshot, type BarStatus, barSnapshot, barStatus } from './bar-status.ts';
import type { AddedCapability } from './config/added-capabilities.ts';
import type { ConfigOverrides } from './config/config-overrides.ts';
import { GuestFunction } from './guest-function.ts';
import type { GuestPciFunction } from './host-bridge/guest-pci-function.ts';
import type { AssignedInterrupts } from './interrupts/assigned-interrupts.ts';
import type { PhysicalFunction } from './physical-function.ts';
import { resetFunctions } from './reset.ts';
import { INSPECT, objectText, withSnapshotText } from '../object-text.ts';
import { requireNumber } from '../number-types.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import type { Registration } from '../registration.ts';
import { valueText } from '../value-text.ts';

/** Options of {@link AssignedDevice.create}. */
export interface AssignedDeviceOptions {
  /** A {@link VfioDevice} or a `SimulatedDevice` whose BARs are not mapped yet. */
  readonly device: PhysicalFunction;
  /** The guest memory for its BARs: the one that its container maps. */
  readonly memory: GuestMemory;
  /**
   * Options by BAR number: pinned addresses, and who may access the memory. Default: the guest places all BARs, and all
   * may access them
   */
  readonly bars?: BarsOptions;
  /** The peer-to-peer domain of all its BARs, as in {@link DeviceAccessOptions}. Default: `default` */
  readonly peerToPeerDomain?: string;
  /** Capabilities that the guest has in config space, in addition to those of the device. Default: none */
  readonly capabilities?: readonly AddedCapability[];
  /** Values of config space that the guest reads instead of those of the device. Default: none */
  readonly config?: ConfigOverrides;
  /** Parts of BARs whose pages are not mapped, so that accesses trap to the VMM. Default: none */
  readonly traps?: readonly BarTrap[];
  /** Parts of BARs in which the device repeats its config space. Default: none */
  readonly mirrors?: readonly ConfigMirror[];
}

const OPTIONS = ['device', 'memory', 'bars', 'peerToPeerDomain', 'capabilities', 'config', 'traps', 'mirrors'] as const;

/** Result of {@link AssignedDevice.inspect}, ready for `JSON.stringify`. */
export interface AssignedDeviceSnapshot {
  /** PCI address. */
  readonly bdf: string;
  /** In ascending order of their numbers, the ROM last. */
  readonly bars: readonly BarSnapshot[];
  /** The guest's chain of capabilities in the first 256 bytes of config space, in its order. */
  readonly capabilities: readonly {
    /** Identifier, such as 0x11 for MSI-X. */
    readonly id: number;
    /** Bytes from the start of config space. */
    readonly offset: number;
    /** Whether it is one of {@link AssignedDeviceOptions.capabilities}. */
    readonly added: boolean;
  }[];
}

/** Returns the private parts of an assigned device, for {@link resetDevices}. */
let internalsOf: (device: AssignedDevice) => { order: number; func: GuestFunction };

let createdCount = 0;

/**
 * A PCI function that a guest drives.
 *
 * It starts in its power-on state: BARs without addresses; memory decode, bus mastering and interrupts off.
 *
 * Writes to config space are applied one at a time, in call order, whether they are awaited or not. A read returns the
 * effect of the completed writes.
 */
export class AssignedDevice implements GuestPciFunction {
  readonly #memory: GuestMemory;
  readonly #function: GuestFunction;
  readonly #order = createdCount++;
  readonly #closing = new Closing();

  static {
    internalsOf = (device) => {
      if (typeof device === 'object' && device !== null && #function in device) {
        return { order: device.#order, func: device.#function };
      }
      const text = 'an AssignedDevice is expected. Pass the result of AssignedDevice.create.';
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    };
  }

  private constructor(key: typeof PACKAGE_KEY, memory: GuestMemory, func: GuestFunction) {
    requirePackageKey(key, 'AssignedDevice.create()');
    this.#memory = memory;
    this.#function = func;
  }

  /**
   * Assigns a function to a guest. The assigned device owns the function from then on and closes it.
   *
   * @throws {PeerDmaError} `ERR_BAD_CONFIG_SPACE` for an invalid config space; `ERR_INVALID_ARGUMENT`,
   * `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE` and `ERR_OVERLAP` for other invalid options, and `ERR_OVERLAP` for config space
   * without room for a capability. `ERR_UNSUPPORTED` for a port type that the device cannot have; `ERR_DEVICE_IN_USE`
   * for a function that is already assigned. If it fails, the caller still owns the function
   */
  static async create(options: AssignedDeviceOptions): Promise<AssignedDevice> {
    const given = readOptions(options, OPTIONS);
    const {
      device,
      memory,
      bars = {},
      peerToPeerDomain,
      capabilities = [],
      config = {},
      traps = [],
      mirrors = [],
    } = given;
    const changes = { bars, peerToPeerDomain, capabilities, config, traps, mirrors };
    const func = await GuestFunction.create(device, memory, changes);
    return new AssignedDevice(PACKAGE_KEY, memory, func);
  }

  /** The function. This object owns it until it is closed. */
  get device(): PhysicalFunction {
    return this.#function.device;
  }

  /** PCI address on the host. */
  get bdf(): string {
    return this.device.bdf;
  }

  /** The guest memory for its BARs. */
  get memory(): GuestMemory {
    return this.#memory;
  }

  /** Its interrupts, as configured by the guest. */
  get interrupts(): AssignedInterrupts {
    return this.#function.interrupts;
  }

  /**
   * Reads config space for the guest. An access can be unaligned.
   *
   * It does not throw for accesses that a guest can make: bytes past the end of config space read as all ones, and so
   * does a device that does not respond.
   *
   * @param offset bytes from the start of config space, 0 to 4095
   * @param size 1, 2 or 4 bytes. Use {@link AssignedDevice.ecamRead} for the other lengths of an ECAM access
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` and `ERR_OUT_OF_RANGE` for other arguments; `ERR_CLOSED`
   */
  configRead(offset: number, size: number): number {
    this.#requireOpen();
    return this.#function.read(offset, size).reduceRight((value, byte) => value * 256 + byte, 0);
  }

  /**
   * Writes config space for the guest, and updates guest memory and every IOMMU.
   *
   * A BAR that is disabled or reset is unmapped before the device receives the write. A BAR that is enabled or moved is
   * mapped there when the promise resolves; the BARs of the device itself do not change.
   *
   * A BAR that a DMA target cannot map does not fail the write unless the target was registered with `peerToPeer:
   * 'required'`: {@link AssignedDevice.status} and the channel `peerdma:pci.bar` report it.
   *
   * It rejects for host failures only, not for values that a guest writes. Bytes past the end of config space are
   * dropped.
   *
   * If it rejects, config space, BARs and device are in their previous state, except for effects that the device
   * cannot undo, such as a reset.
   *
   * @param offset bytes from the start of config space, 0 to 4095
   * @param size 1, 2 or 4 bytes
   * @param value the bytes as an unsigned number
   * @throws {PeerDmaError} as {@link AssignedDevice.configRead}; `ERR_SYSTEM` when the kernel rejects the write, e.g.
   * because the device is gone; `ERR_UNMAP_FAILED`, `ERR_RANGE_QUARANTINED`; the error of a target that requires the
   * BAR; `ERR_INTERRUPT_SETUP`; `ERR_ROLLBACK_FAILED` if the previous state could not be restored
   */
  async configWrite(offset: number, size: number, value: number): Promise<void> {
    const present = this.#function.countPresentBytes(offset, size);
    requireNumber(value, 'value', this.bdf);
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * size)) {
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `a value of ${size} bytes is a whole number from 0 to 2^${8 * size} - 1, not ${valueText(value)}`,
        { bdf: this.bdf },
      );
    }
    const bytes = new Uint8Array(present);
    for (let index = 0; index < present; index++) bytes[index] = value >>> (8 * index);
    await this.#function.queue.run(() => this.#function.write(offset, bytes));
  }

  /**
   * Reads config space for an ECAM (MMCONFIG) access of any length, such as a load of 8 bytes.
   *
   * The access is split into aligned accesses of up to 4 bytes, each equivalent to {@link AssignedDevice.configRead}.
   * It does not throw for accesses that a guest can make: bytes past offset 4095 read as all ones.
   *
   * @param offset bytes from the start of config space, 0 to 4095
   * @param length bytes, 1 to 4096
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_EMPTY_RANGE` and `ERR_OUT_OF_RANGE` for an access that no
   * guest can make; `ERR_CLOSED`
   */
  ecamRead(offset: number, length: number): Uint8Array {
    this.#requireOpen();
    return this.#function.ecamRead(offset, length);
  }

  /**
   * Writes config space for an ECAM access; see {@link AssignedDevice.ecamRead}.
   *
   * Each of the aligned accesses is equivalent to {@link AssignedDevice.configWrite}. No other write of the guest is
   * applied between them.
   *
   * @param offset bytes from the start of config space, 0 to 4095
   * @param bytes 1 to 4096; copied before this returns
   * @throws {PeerDmaError} as {@link AssignedDevice.ecamRead} and {@link AssignedDevice.configWrite}. The accesses
   * before the failed one remain applied
   */
  async ecamWrite(offset: number, bytes: Uint8Array): Promise<void> {
    const copy = requireBytes(bytes).slice();
    this.#function.requireEcam(offset, copy.length);
    await this.#function.queue.run(() => this.#function.ecamWrite(offset, copy));
  }

  /**
   * Reads a BAR for the guest, at the address where the guest has placed it.
   *
   * A VMM calls it when the guest accesses a trapped part of a BAR. Naturally aligned lengths of 1, 2, 4 and 8 are one
   * access; other lengths are split into such accesses.
   *
   * It does not throw for accesses that a guest can make: all bits read as one if no BAR decodes the address, for
   * example while memory decode is off, or if the device does not respond.
   *
   * @param gpa guest-physical address
   * @param length bytes, 1 to 4096
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_EMPTY_RANGE` and `ERR_OUT_OF_RANGE` for an invalid access;
   * `ERR_CLOSED`
   */
  mmioRead(gpa: bigint, length: number): Uint8Array {
    this.#requireOpen();
    return this.#function.mmioRead(gpa, length);
  }

  /**
   * Writes a BAR for the guest, as {@link AssignedDevice.mmioRead} reads it.
   *
   * Bytes that no BAR decodes, and bytes that the device does not accept, are dropped.
   *
   * @param gpa guest-physical address
   * @param bytes 1 to 4096; not changed until a returned promise settles
   * @returns a promise if the write takes effect later: that of a mirror of config space, which rejects as
   * {@link AssignedDevice.configWrite}, or that of a {@link BarTrap}. Otherwise nothing
   * @throws {PeerDmaError} as {@link AssignedDevice.mmioRead}; `ERR_INTERRUPT_SETUP` if the guest unmasks an entry of
   * the MSI-X table that the host cannot connect
   */
  mmioWrite(gpa: bigint, bytes: Uint8Array): void | Promise<void> {
    this.#requireOpen();
    return this.#function.mmioWrite(gpa, bytes);
  }

  /** The guest-physical addresses that its BARs decode, their mapped and their trapped parts. Empty if none decodes. */
  get decodedBars(): readonly AddressRange[] {
    return this.#function.decodedBars();
  }

  /**
   * Registers a callback for changes of {@link AssignedDevice.decodedBars}, in addition to others.
   *
   * It is called during the config write, reset or close that changes them, after guest memory was updated, and again
   * if that is undone after a failure. An error that it throws becomes an uncaught exception.
   *
   * @returns the registration, whose removal ends the calls
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
   */
  watchBars(changed: () => void): Registration {
    if (typeof changed !== 'function') {
      const text = `the callback for changes must be a function, not ${valueText(changed)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf: this.bdf });
    }
    return this.#function.windows.watch(changed);
  }

  /** Returns the state of each BAR: address, mapped parts, and DMA targets that cannot reach it. */
  status(): BarStatus[] {
    return barStatus(this.#memory, this.#function.windows);
  }

  /** {@link AssignedDevice.status} and the capabilities as plain data. */
  inspect(): AssignedDeviceSnapshot {
    const capabilities = this.#function.capabilities.map(({ id, offset, added }) => ({ id, offset, added }));
    const snapshot = { bdf: this.bdf, bars: this.status().map(barSnapshot), capabilities };
    return withSnapshotText('AssignedDeviceSnapshot', snapshot);
  }

  /**
   * Resets the device to its power-on state.
   *
   * Its BARs are unmapped and lose their addresses; interrupts, memory decode and bus mastering are switched off; then
   * the hardware is reset. Use {@link resetDevices} for devices that can only be reset together.
   *
   * @param options.signal as for {@link resetDevices}
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` if the hardware cannot be reset on its own: all other steps are
   * done, so that the device is quiet. `ERR_UNMAP_FAILED`: nothing has changed. Other errors of the kernel
   * @throws the reason of the signal
   */
  reset(options: AbortOptions = {}): Promise<void> {
    return resetDevices([this], options);
  }

  /**
   * Unmaps its BARs from guest memory and from every IOMMU, then closes the device. Idempotent.
   *
   * When the promise resolves, no other device can reach it, and it can reach nothing.
   *
   * @throws {PeerDmaError} the error of a target or of the kernel; call it again to retry
   */
  close(): Promise<void> {
    return this.#closing.once(() => this.#function.queue.close(() => this.#function.close()));
  }

  /** As {@link AssignedDevice.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'AssignedDevice', () => {
      const { addresses } = this.#function.windows;
      const bars = [...addresses].map(([index, gpa]) => `BAR ${index}: ${hex(gpa)}`);
      return [this.bdf, ...bars, this.#function.queue.closed ? 'closed' : 'open'];
    });
  }

  #requireOpen(): void {
    if (this.#function.queue.closed) {
      throw new PeerDmaError('ERR_CLOSED', `the assigned device ${this.bdf} is closed`, { bdf: this.bdf });
    }
  }
}

/**
 * Resets devices together, e.g. when their VM is reset.
 *
 * The BARs of all devices are unmapped and lose their addresses; interrupts, memory decode and bus mastering are
 * switched off. Then the hardware is reset: each function on its own if it supports that, otherwise through its bus or
 * slot, if all functions there are among these devices. A failure of one device does not prevent the reset of the
 * others.
 *
 * @param options.signal aborts the reset before the first device is quiesced: BARs that are unmapped by then are mapped
 * again. If it is aborted later, the reset is completed, and all devices are in their power-on state. Default: none
 * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` with the devices whose hardware cannot be reset: all other steps are
 * done, so that they are quiet. `ERR_UNMAP_FAILED`: nothing has changed. `ERR_CLOSED`. Errors of the kernel
 * @throws the reason of the signal
 */
export async function resetDevices(devices: readonly AssignedDevice[], options: AbortOptions = {}): Promise<void> {
  const signal = readSignal(options);
  const all = [...new Set(readArray(devices, 'devices to be reset'))].map(internalsOf);
  // A common order prevents two concurrent resets from waiting for each other.
  all.sort((a, b) => a.order - b.order);
  const holding = async (rest: typeof all, onTurn: () => void): Promise<void> => {
    const [first, ...others] = rest;
    if (first !== undefined) return first.func.queue.run(() => holding(others, onTurn));
    onTurn();
    const functions = all.map(({ func }) => func);
    await resetFunctions(functions, signal);
  };
  await runAbortable(signal, (onTurn) => holding(all, onTurn));
}
