/**
 * A physical PCI function as a guest sees it: config space with BARs that the guest sizes, places and moves, windows of
 * guest memory that follow them, and interrupts.
 */
import { readArray, readOptions, requireBytes } from '../arguments.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError } from '../errors.ts';
import type { GuestMemory } from '../guest/guest-memory.ts';
import { MutationQueue } from '../guest/mutation-queue.ts';
import { type BarSnapshot, type BarStatus, barSnapshot, barStatus } from './bar-status.ts';
import { GuestFunction } from './guest-function.ts';
import type { AssignedInterrupts } from './interrupts/assigned-interrupts.ts';
import type { PhysicalFunction } from './physical-function.ts';
import type { PinnedBars } from './pinned-bars.ts';
import { resetFunctions } from './reset.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import { valueText } from '../value-text.ts';

/** What {@link AssignedDevice.inspect} gives; `JSON.stringify` takes it. */
export interface AssignedDeviceSnapshot {
  /** PCI address. */
  readonly device: string;
  /** By ascending number, the ROM last. */
  readonly bars: readonly BarSnapshot[];
}

/** The rest of an assigned device, for {@link resetDevices}. */
let insideOf: (device: AssignedDevice) => { order: number; queue: MutationQueue; func: GuestFunction };

let made = 0;

/**
 * A PCI function that a guest drives. It starts as after power-on: BARs without address, memory decode, bus mastering and
 * interrupts off.
 *
 * Writes to config space apply one at a time, in the order of the calls, whether they are awaited or not; a read sees
 * those that are done.
 */
export class AssignedDevice {
  readonly #memory: GuestMemory;
  readonly #function: GuestFunction;
  readonly #queue: MutationQueue;
  readonly #order = made++;
  readonly #closing = new Closing();

  static {
    insideOf = (device) => {
      if (typeof device === 'object' && device !== null && #queue in device) {
        return { order: device.#order, queue: device.#queue, func: device.#function };
      }
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'an assigned device is what AssignedDevice.create gives');
    };
  }

  private constructor(key: typeof PACKAGE_KEY, memory: GuestMemory, func: GuestFunction) {
    requirePackageKey(key, 'AssignedDevice.create()');
    this.#memory = memory;
    this.#function = func;
    this.#queue = new MutationQueue(`the assigned device ${func.device.bdf}`);
  }

  /**
   * Prepares a function for a guest. From then on it belongs to the assigned device, which closes it.
   *
   * @param options.device a {@link VfioDevice} or a {@link SimulatedDevice} whose BARs nobody has placed
   * @param options.memory where its BARs appear: the guest memory that its container follows
   * @param options.bars BARs that stay at one guest address whatever the guest writes, by their number: `host` for the
   * address that the host has given them
   * @throws {PeerDmaError} `ERR_BAD_CONFIG_SPACE` for a device that makes no sense, `ERR_INVALID_ARGUMENT`,
   * `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE` and `ERR_OVERLAP` for pinned BARs that can't be, `ERR_DEVICE_IN_USE` for a function
   * that is assigned already. The function is the caller's then
   */
  static async create(options: {
    device: PhysicalFunction;
    memory: GuestMemory;
    bars?: PinnedBars;
  }): Promise<AssignedDevice> {
    const { device, memory, bars = {} } = readOptions(options, ['device', 'memory', 'bars']);
    return new AssignedDevice(PACKAGE_KEY, memory, await GuestFunction.create(device, memory, bars));
  }

  /** The function, which belongs to this object until it is closed. */
  get device(): PhysicalFunction {
    return this.#function.device;
  }

  /** PCI address on the host. */
  get bdf(): string {
    return this.device.bdf;
  }

  /** Its interrupts, as the guest sets them up. */
  get interrupts(): AssignedInterrupts {
    return this.#function.interrupts;
  }

  /**
   * What the guest reads of config space. It does not throw for what a guest can do: past the end of config space, and
   * if the device does not answer, all bits read as one. An access need not be aligned.
   *
   * @param offset bytes from the start of config space, 0 to 4095
   * @param size 1, 2 or 4 bytes. An access by ECAM may have other lengths: {@link AssignedDevice.ecamRead}
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` and `ERR_OUT_OF_RANGE` for other arguments; `ERR_CLOSED`
   */
  configRead(offset: number, size: number): number {
    this.#requireOpen();
    return this.#function.read(offset, size).reduceRight((value, byte) => value * 256 + byte, 0);
  }

  /**
   * What the guest writes to config space. When it is done, guest memory and every IOMMU have followed: a BAR that is
   * switched off, moved or reset is out of reach before the device hears of it, and one that is switched on is in reach.
   *
   * A BAR that a DMA target can't map does not fail this, unless the target was registered with `peerToPeer: 'required'`:
   * {@link AssignedDevice.status} has it, and the channel `peerdma:pci.bar`.
   *
   * It rejects for faults of the host alone, not for what a guest writes: bytes past the end of config space are
   * dropped.
   *
   * @param offset bytes from the start of config space, 0 to 4095
   * @param size 1, 2 or 4 bytes
   * @param value the bytes as an unsigned number
   * @throws {PeerDmaError} as {@link AssignedDevice.configRead}; `ERR_SYSTEM` where the kernel refuses the write, as
   * for a device that is gone; `ERR_UNMAP_FAILED`, `ERR_RANGE_QUARANTINED`; what a target said that has to have the
   * BAR; `ERR_INTERRUPT_SETUP`. Then config space and BARs are as before, and so is the device, but for what it was
   * told and can't forget, such as a reset; `ERR_ROLLBACK_FAILED` where that could not be
   */
  async configWrite(offset: number, size: number, value: number): Promise<void> {
    const present = this.#function.requireAccess(offset, size);
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * size)) {
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `a value of ${size} bytes is a whole number from 0 to 2^${8 * size} - 1, not ${valueText(value)}`,
        { device: this.bdf },
      );
    }
    const bytes = new Uint8Array(present);
    for (let index = 0; index < present; index++) bytes[index] = value >>> (8 * index);
    await this.#queue.run(() => this.#function.write(offset, bytes));
  }

  /**
   * What the guest reads of config space by ECAM (MMCONFIG): an access of any length, such as the 8 bytes of a 64-bit
   * load. It is made in aligned accesses of up to 4 bytes, each as {@link AssignedDevice.configRead} makes one. It does
   * not throw for what a guest can do: past offset 4095 all bits read as one.
   *
   * @param offset bytes from the start of config space, 0 to 4095
   * @param length bytes, 1 to 4096
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_EMPTY_RANGE` and `ERR_OUT_OF_RANGE` for an access that no guest
   * can make; `ERR_CLOSED`
   */
  ecamRead(offset: number, length: number): Uint8Array {
    this.#requireOpen();
    return this.#function.ecamRead(offset, length);
  }

  /**
   * What the guest writes to config space by ECAM; see {@link AssignedDevice.ecamRead}. Each of the aligned accesses is
   * made as {@link AssignedDevice.configWrite} makes one, and no other write of the guest comes between them.
   *
   * @param offset bytes from the start of config space, 0 to 4095
   * @param bytes 1 to 4096; copied before this returns
   * @throws {PeerDmaError} as {@link AssignedDevice.ecamRead} and {@link AssignedDevice.configWrite}. The accesses
   * before the one that fails stay made
   */
  async ecamWrite(offset: number, bytes: Uint8Array): Promise<void> {
    const copy = requireBytes(bytes).slice();
    this.#function.requireEcam(offset, copy.length);
    await this.#queue.run(() => this.#function.ecamWrite(offset, copy));
  }

  /**
   * An access of the guest to a BAR, where the guest has placed it: what a VMM calls when the guest touches what is not
   * memory there. Lengths of 1, 2, 4 and 8 at a multiple of themselves are one access; others are cut into such.
   *
   * It does not throw for what a guest can do: where the device has no BAR at present, as while memory decode is off,
   * and if the device does not answer, all bits read as one.
   *
   * @param gpa guest-physical address
   * @param length bytes, 1 to 4096
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_EMPTY_RANGE` and `ERR_OUT_OF_RANGE` for what is not an access;
   * `ERR_CLOSED`
   */
  mmioRead(gpa: bigint, length: number): Uint8Array {
    this.#requireOpen();
    return this.#function.mmioRead(gpa, length);
  }

  /**
   * As {@link AssignedDevice.mmioRead}; what no BAR takes, and what the device does not take, is dropped.
   *
   * @param gpa guest-physical address
   * @throws {PeerDmaError} as {@link AssignedDevice.mmioRead}; `ERR_INTERRUPT_SETUP` where the guest unmasks an entry
   * of the MSI-X table that the host can't connect
   */
  mmioWrite(gpa: bigint, bytes: Uint8Array): void {
    this.#requireOpen();
    this.#function.mmioWrite(gpa, bytes);
  }

  /** Where each BAR is, what of it is memory in the guest, and which DMA targets don't reach it and why. */
  status(): BarStatus[] {
    return barStatus(this.#memory, this.#function.windows);
  }

  /** {@link AssignedDevice.status} as plain data. */
  inspect(): AssignedDeviceSnapshot {
    return { device: this.bdf, bars: this.status().map(barSnapshot) };
  }

  /**
   * Resets the device as a power cycle would: its BARs leave guest memory and lose their addresses, interrupts, memory
   * decode and bus mastering go off, then the hardware is reset. See {@link resetDevices} for devices that can only be
   * reset together.
   *
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` where the hardware can't be reset by itself: all but that has been done
   * then, so that it is quiet. `ERR_UNMAP_FAILED`: nothing has changed. What else the kernel says
   */
  reset(): Promise<void> {
    return resetDevices([this]);
  }

  /**
   * Takes its BARs out of guest memory, and so out of every IOMMU, then closes the device: when it is done, no other
   * device reaches it, and it reaches nothing. Idempotent.
   *
   * @throws {PeerDmaError} what a target or the kernel said; it can be called again then
   */
  close(): Promise<void> {
    return this.#closing.once(() => this.#queue.close(() => this.#function.close()));
  }

  /** As {@link AssignedDevice.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #requireOpen(): void {
    if (this.#queue.closed) {
      throw new PeerDmaError('ERR_CLOSED', `the assigned device ${this.bdf} is closed`, { device: this.bdf });
    }
  }
}

/**
 * Resets devices together, as when their VM is reset: the BARs of all leave guest memory and lose their addresses, and
 * interrupts, memory decode and bus mastering go off; then the hardware is reset, each function on its own where it can
 * be, else by its bus or slot if all that shares it is among these devices.
 *
 * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` naming the devices whose hardware can't be reset: all but that has been
 * done then, so that they are quiet. `ERR_UNMAP_FAILED`: nothing has changed. `ERR_CLOSED`. What the kernel says of one
 * device keeps no other from being reset
 */
export async function resetDevices(devices: readonly AssignedDevice[]): Promise<void> {
  const all = [...new Set(readArray(devices, 'devices to be reset'))].map(insideOf);
  // Two resets at once must not wait for one another.
  all.sort((a, b) => a.order - b.order);
  const holding = (rest: typeof all): Promise<void> => {
    const [first, ...others] = rest;
    return first === undefined ? resetFunctions(all.map(({ func }) => func)) : first.queue.run(() => holding(others));
  };
  await holding(all);
}
