/**
 * What this package asks of a device: the function of a physical device that VFIO opened, or a simulated one.
 */
import type { AddressRange } from '../address-range.ts';
import { readArray, readOptions } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import type { Backing } from '../memory/backing.ts';
import type { EventFd } from './event-fd.ts';

/** A region of a device: config space, a BAR, the ROM. Offsets are in bytes from its start. */
export interface DeviceRegion {
  /** VFIO's number of it: 0 to 5 the BARs, 6 the ROM, 7 config space (`linux/vfio.h`). */
  readonly index: number;
  /** Bytes. */
  readonly length: bigint;
  /** The parts that can be mapped into guest memory, as offsets. */
  readonly mmapAreas: readonly AddressRange[];
  /** Where the host has placed it, as a physical address; `undefined` where that is not known, and for config space. */
  readonly hostAddress: bigint | undefined;
  /**
   * The region as memory, for {@link DeviceMemory.map}.
   *
   * @param offset bytes from the start of the region, where the memory begins. Default: 0
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
   * As {@link DeviceRegion.write}, on a worker thread: for writes that take long, such as one that resets the
   * function or wakes it. Without this method such writes go through {@link DeviceRegion.write}.
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

/**
 * The ways a device can interrupt: the pin, messages, messages by table, an uncorrectable error, and the host's request
 * to let go of the device.
 */
export type InterruptKind = 'intx' | 'msi' | 'msix' | 'error' | 'request';

/** The interrupts of a function, each signalled on an eventfd. Of `intx`, `msi` and `msix` one can be connected at a time. */
export interface DeviceInterrupts {
  /** How many vectors of a kind the device has; 0 where it has none. */
  count(kind: InterruptKind): number;
  /**
   * Connects the first vectors of a kind, each to its eventfd; `undefined` leaves a vector silent until it is reconnected.
   * Of MSI-X that costs nothing where the kernel can add vectors later (Linux 6.4), but for the first vector, and the device keeps what a silent
   * vector has to say: its pending bits show it, and reconnecting delivers it. The kind was disconnected before. The eventfds may be closed afterwards: the kernel keeps its own hold on them.
   *
   * A pin that is asserted already interrupts at once. While Command has it switched off (bit 10) it is silent, and stays
   * connected: what asserts it when it is switched on interrupts then.
   *
   * @throws {PeerDmaError} `ERR_INTERRUPT_UNSUPPORTED` for more vectors than there are; `ERR_INTERRUPT_SETUP` where the
   * kernel refuses, such as a second kind of `intx`, `msi` and `msix`
   */
  connect(kind: InterruptKind, eventFds: readonly (EventFd | undefined)[]): void;
  /**
   * Gives one vector of a connected kind another eventfd, or silences it. Throws as {@link DeviceInterrupts.connect}.
   *
   * @param vector its number within the kind, from 0
   */
  reconnect(kind: InterruptKind, vector: number, eventFd: EventFd | undefined): void;
  /** Silences a kind as a whole; nothing where it is not connected, or the device is closed. */
  disconnect(kind: InterruptKind): void;
  /** Masks the pin, as the kernel does by itself each time it has signalled it. */
  maskIntx(): void;
  /** Lets the pin interrupt again; if it is still asserted, it does at once. Nothing while Command has it switched off. */
  unmaskIntx(): void;
  /**
   * Unmasks the pin whenever the eventfd is signalled (a hypervisor's resample), until `intx` is disconnected; `undefined`
   * for no more.
   */
  unmaskIntxOn(eventFd: EventFd | undefined): void;
}

/** A PCI function. */
export interface PhysicalFunction {
  /** PCI address, such as `0000:01:00.0`. */
  readonly bdf: string;
  /** 256 or 4096 bytes; fewer, down to 64, where the host shortens it. */
  readonly config: DeviceRegion;
  /** BARs 0 to 5, then the ROM; `undefined` where the device has none. */
  readonly regions: readonly (DeviceRegion | undefined)[];
  /** What it can interrupt with. */
  readonly interrupts: DeviceInterrupts;
  /**
   * Resets the function alone. Config space is as before, afterwards; what is mapped of its BARs should be unmapped first.
   *
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` where it has no way of being reset on its own;
   * `ERR_BAD_CONFIG_SPACE` where it did not return from the reset
   */
  reset(): Promise<void>;
  /**
   * Resets its bus or slot, and with it every function there.
   *
   * @param others the functions that are known to be reset with it: together with this one they must be all that the
   * reset reaches
   * @returns which it has reset, this one among them
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` where there is no such reset, or it reaches a device that is not among
   * these (the message names it)
   */
  hotReset(others: readonly PhysicalFunction[]): Promise<readonly PhysicalFunction[]>;
  /** Lets go of the device. Idempotent. */
  close(): Promise<void>;
}

/**
 * Checks that a device of a caller has the parts of a function.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export function requireFunction(device: PhysicalFunction): void {
  const { bdf, regions, ...parts } = readOptions(
    device,
    ['bdf', 'config', 'regions', 'interrupts', 'reset', 'hotReset', 'close'],
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
    'a device is a PhysicalFunction, such as VfioContainerManager.open gives',
  );
}
