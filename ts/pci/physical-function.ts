/** The interface of a PCI function: a physical one opened by VFIO, or a simulated one. */
import type { NativeVfioDevice } from '#native';
import type { AbortOptions } from '../abort.ts';
import type { AddressRange } from '../address-range.ts';
import { readArray, readOptions } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import type { GuestMemory } from '../guest/guest-memory.ts';
import type { Backing } from '../memory/backing.ts';
import type { EventFd } from '../event-fd.ts';
import type { DeviceMigration } from './migration/device-migration.ts';

/** A region of a device: config space, a BAR, the ROM. Offsets are in bytes from its start. */
export interface DeviceRegion {
  /** VFIO's region index: 0 to 5 the BARs, 6 the ROM, 7 config space (`linux/vfio.h`). */
  readonly index: number;
  /** Bytes. */
  readonly length: bigint;
  /** The parts that can be mapped into guest memory, as offsets. */
  readonly mmapAreas: readonly AddressRange[];
  /** Its physical address on the host; `undefined` if unknown, and for config space. */
  readonly hostAddress: bigint | undefined;
  /**
   * The region as a backing for {@link MemoryRegion.addMapping}.
   *
   * @param offset bytes from the start of the region at which the backing begins. Default: 0
   */
  backing(offset?: bigint): Backing;
  /**
   * Naturally aligned lengths of 1, 2 and 4 are one access of that width.
   *
   * @param offset bytes from the start of the region
   * @param length bytes
   */
  read(offset: bigint, length: number): Uint8Array;
  /**
   * Naturally aligned lengths of 1, 2 and 4 are one access of that width.
   *
   * @param offset bytes from the start of the region
   */
  write(offset: bigint, bytes: Uint8Array): void;
  /**
   * Writes as {@link DeviceRegion.write} does, on a worker thread.
   *
   * It is used for slow writes, such as one that resets or wakes the function. Without this method such writes use
   * {@link DeviceRegion.write}.
   *
   * @param offset bytes from the start of the region
   */
  writeAsync?(offset: bigint, bytes: Uint8Array): Promise<void>;
  /**
   * One access of 32 bits at a multiple of 4.
   *
   * @param offset bytes from the start of the region; a multiple of 4
   */
  read32(offset: bigint): number;
  /**
   * One access of 32 bits at a multiple of 4.
   *
   * @param offset bytes from the start of the region; a multiple of 4
   * @param value 32 bits, unsigned
   */
  write32(offset: bigint, value: number): void;
  /**
   * One access of 64 bits at a multiple of 8.
   *
   * @param offset bytes from the start of the region; a multiple of 8
   */
  read64(offset: bigint): bigint;
  /**
   * One access of 64 bits at a multiple of 8.
   *
   * @param offset bytes from the start of the region; a multiple of 8
   * @param value 64 bits, unsigned
   */
  write64(offset: bigint, value: bigint): void;
}

/** The kinds of interrupts: pin, MSI, MSI-X, uncorrectable error, and request to release the device. */
export type InterruptKind = 'intx' | 'msi' | 'msix' | 'error' | 'request';

/**
 * The interrupts of a function. Each signals an eventfd. Only one of `intx`, `msi`, `msix` can be connected at a time.
 */
export interface DeviceInterrupts {
  /** Returns how many vectors of a kind the device has; 0 for none. */
  count(kind: InterruptKind): number;
  /**
   * Connects the first vectors of a kind to eventfds; `undefined` leaves a vector unconnected.
   *
   * The kind must be disconnected before. The eventfds may be closed afterwards: the kernel holds its own references.
   *
   * An unconnected MSI-X vector other than the first takes no host resources if the kernel can add vectors later (Linux
   * 6.4). Its messages become pending in the device, and reconnecting delivers them.
   *
   * If the pin is already asserted, it interrupts at once. While Command disables the pin (bit 10), it does not
   * interrupt but remains connected; if it is still asserted when it is enabled, it interrupts then.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_UNSUPPORTED` for more vectors than the device has; `ERR_INTERRUPT_SETUP` if
   * the kernel rejects it, e.g. a second kind of `intx`, `msi` and `msix`
   */
  connect(kind: InterruptKind, eventFds: readonly (EventFd | undefined)[]): void;
  /**
   * Connects one vector of a connected kind to another eventfd, or disconnects it (`undefined`).
   *
   * @param vector its number within the kind, from 0
   * @throws {PeerDmaError} as {@link DeviceInterrupts.connect}
   */
  reconnect(kind: InterruptKind, vector: number, eventFd: EventFd | undefined): void;
  /** Disconnects a kind. Does nothing if it is not connected, or if the device is closed. */
  disconnect(kind: InterruptKind): void;
  /** Masks the pin. The kernel also masks it after each interrupt. */
  maskIntx(): void;
  /** Unmasks the pin; if it is still asserted, it interrupts at once. Does nothing while Command disables it. */
  unmaskIntx(): void;
  /**
   * Unmasks the pin on each signal of the eventfd, until `intx` is disconnected. Hypervisors call it a resample.
   *
   * @param eventFd `undefined` to stop
   */
  unmaskIntxOn(eventFd: EventFd | undefined): void;
}

/** A PCI function. */
export interface PhysicalFunction {
  /** PCI address, such as `0000:01:00.0`. */
  readonly bdf: string;
  /** Config space: 256 or 4096 bytes, or fewer (at least 64) if the host truncates it. */
  readonly config: DeviceRegion;
  /** BARs 0 to 5, then the ROM; `undefined` if the device does not have it. */
  readonly regions: readonly (DeviceRegion | undefined)[];
  /** Its interrupts. */
  readonly interrupts: DeviceInterrupts;
  /**
   * The guest memory that its IOMMU maps, if that is known: the function can be assigned in no other.
   *
   * A simulated function has none, because its IOMMU is part of its options.
   */
  readonly guestMemory?: GuestMemory | undefined;
  /** Its migration; `undefined` if it cannot migrate. */
  readonly migration?: DeviceMigration | undefined;
  /** The device in the native core, if it is one of VFIO. @internal */
  readonly nativeDevice?: NativeVfioDevice | undefined;
  /**
   * Resets only this function. Config space is the same afterwards. Unmap its BARs first.
   *
   * @param options.signal aborts the reset before the hardware is reset. {@link AssignedDevice} passes none: it
   * completes a reset once the function is quiesced. Default: none
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` if it cannot be reset on its own; `ERR_BAD_CONFIG_SPACE` if it does
   * not respond after the reset
   */
  reset(options?: AbortOptions): Promise<void>;
  /**
   * Resets its bus or slot, including every function there.
   *
   * @param others the other functions that the reset may affect
   * @param options.signal as for {@link PhysicalFunction.reset}
   * @returns all functions that were reset, including this one
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` if there is no such reset, or if it affects a device that is not
   * among these (the message names it)
   */
  hotReset(others: readonly PhysicalFunction[], options?: AbortOptions): Promise<readonly PhysicalFunction[]>;
  /** Closes the device. Idempotent. */
  close(): Promise<void>;
}

/**
 * Checks that a value has the members of a function.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export function requireFunction(device: PhysicalFunction): void {
  const { bdf, regions, ...parts } = readOptions(
    device,
    ['bdf', 'config', 'regions', 'interrupts', 'guestMemory', 'reset', 'hotReset', 'close'],
    'the parts of a device',
  );
  const { read, write } = readOptions(parts.config, ['read', 'write'], 'the methods of config space');
  const { count, connect } = readOptions(parts.interrupts, ['count', 'connect'], 'the methods of interrupts');
  const methods = [read, write, count, connect, parts.reset, parts.hotReset, parts.close];
  const complete = methods.every((method) => typeof method === 'function');
  readArray(regions, 'the regions of a device');
  if (typeof bdf === 'string' && complete) return;
  throw new PeerDmaError(
    'ERR_INVALID_ARGUMENT',
    'a PhysicalFunction is expected. Pass the result of VfioContainerManager.open or a SimulatedDevice.',
  );
}
