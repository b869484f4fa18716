/**
 * What can be said of a simulated device when it is made.
 */
import type { AddressRange } from '../../address-range.ts';
import { readArray, readOptions } from '../../arguments.ts';
import type { MemoryFile } from '../../memory/memory-file.ts';
import type { SimulatedBus } from './simulated-bus.ts';

/** A {@link SimulatedDevice} to be. */
export interface SimulatedDeviceOptions {
  /** PCI address, such as `0000:00:04.0`. */
  readonly bdf: string;
  /** Default: none. */
  readonly bars?: readonly SimulatedBar[];
  /** An expansion ROM: it can be read, and never be mapped. Default: none */
  readonly rom?: {
    /** Bytes. */
    readonly length: bigint;
    /** What it begins with. Default: zeros */
    readonly contents?: Uint8Array;
  };
  /**
   * A recorded config space to start from: 64 to 4096 bytes, a multiple of 4. The BARs that are given appear in it at
   * their registers, and take their kind from there unless they have one. Without it a config space is built from what
   * follows.
   */
  readonly config?: Uint8Array;
  /**
   * What the device says that it is. With a recorded config space: vendor and device of a virtual function, which has
   * none there.
   */
  readonly ids?: SimulatedIds;
  /** Makes it one that can sleep. */
  readonly powerManagement?: {
    /** Whether it keeps its registers on the way from D3hot to D0. Default: false */
    readonly noSoftReset?: boolean;
  };
  /** Gives it MSI. */
  readonly msi?: {
    /** 1, 2, 4, 8, 16 or 32. Default: 1 */
    readonly vectors?: number;
    /** Whether its messages can go to addresses of 64 bits, instead of 32. Default: true */
    readonly address64?: boolean;
    /** Whether it has bits to mask each vector. Default: false */
    readonly masking?: boolean;
  };
  /** Gives it MSI-X. */
  readonly msix?: SimulatedMsix;
  /** Makes it a PCI Express endpoint, with 4096 bytes of config space. */
  readonly pcie?: {
    /** Whether it has function-level reset. Default: true */
    readonly flr?: boolean;
  };
  /** The conventional way to a function-level reset (PCI ECN "Advanced Capabilities for Conventional PCI"). */
  readonly advancedFeatures?: boolean;
  /** Whether it has INTA#. Default: as recorded; false where config space is built */
  readonly interruptPin?: boolean;
  /** Whether {@link SimulatedDevice.reset} works. Default: where config space has a way of resetting the function alone */
  readonly resettable?: boolean;
  /** What its DMA goes through: a {@link SimulatedIommu}. Without one every DMA faults. */
  readonly iommu?: SimulatedDma;
  /** What it is reset with. Default: nothing, so that {@link SimulatedDevice.hotReset} is not supported */
  readonly bus?: SimulatedBus;
}

/** What a device's DMA goes through, by IOVA; it throws `ERR_DMA_FAULT`. */
export interface SimulatedDma {
  /**
   * What the device reads.
   *
   * @param iova where it reads
   * @param length bytes
   */
  read(iova: bigint, length: number): Uint8Array;
  /**
   * What the device writes: all of it or nothing.
   *
   * @param iova where it writes
   */
  write(iova: bigint, bytes: Uint8Array): void;
}

/** Numbers that say what a device is. */
export interface SimulatedIds {
  /** Default: 0x1234, which belongs to nobody. */
  readonly vendor?: number;
  /** Default: 0x0001 */
  readonly device?: number;
  /** Default: 0 */
  readonly revision?: number;
  /** Base class, subclass and interface, as in 0x010802. Default: 0xff0000, unassigned */
  readonly class?: number;
  /** Default: 0 */
  readonly subsystemVendor?: number;
  /** Default: 0 */
  readonly subsystem?: number;
}

/** Where the interrupt table of a device is. Offsets are multiples of 8 in that BAR, which has to be there. */
export interface SimulatedMsix {
  /** 1 to 2048. */
  readonly vectors: number;
  /** Number of the BAR that holds the table of 16 bytes a vector, and the pending bits. */
  readonly bar: number;
  /** Default: 0 */
  readonly tableOffset?: bigint;
  /** Default: after the table */
  readonly pendingOffset?: bigint;
}

/** A BAR of a simulated device: memory that can be mapped, or registers. */
export interface SimulatedBar {
  /** 0 to 5. One of `memory64` takes the register after its own, too. */
  readonly index: number;
  /** Bytes. What is no power of two has a register of the next one. */
  readonly length: bigint;
  /** Default: as recorded; `memory32` where config space is built */
  readonly kind?: 'memory32' | 'memory64' | 'io';
  /** Default: as recorded; false where config space is built */
  readonly prefetchable?: boolean;
  /**
   * Its memory, which stays the caller's. Devices may share it: each BAR has a handle of its own, which
   * {@link DeviceRegion.backing} returns. Default: zeros in a file of its own
   */
  readonly contents?: MemoryFile;
  /** Which parts can be mapped, as offsets. Default: all, where that is whole pages; nothing of I/O or registers */
  readonly mmapAreas?: readonly AddressRange[];
  /** Makes it registers instead of memory. */
  readonly registers?: SimulatedRegisters;
  /** Where the host has placed it, as a physical address: a multiple of its length. Default: not known, as recorded in config space */
  readonly hostAddress?: bigint;
}

/** Registers behind a BAR. Accesses come one at a time, of 1, 2, 4 or 8 bytes at a multiple of their length. */
export interface SimulatedRegisters {
  /**
   * What is read of them.
   *
   * @param offset bytes from the start of the BAR; a multiple of the length
   * @param length bytes: 1, 2, 4 or 8
   */
  read(offset: bigint, length: number): Uint8Array;
  /**
   * What is written to them.
   *
   * @param offset bytes from the start of the BAR; a multiple of the length
   */
  write(offset: bigint, bytes: Uint8Array): void;
  /** As after power-on: the function is reset. */
  reset?(): void;
}

const PROPERTIES: readonly (keyof SimulatedDeviceOptions)[] = [
  'bdf',
  'bars',
  'rom',
  'config',
  'ids',
  'powerManagement',
  'msi',
  'msix',
  'pcie',
  'advancedFeatures',
  'interruptPin',
  'resettable',
  'iommu',
  'bus',
];

const BAR_PROPERTIES: readonly (keyof SimulatedBar)[] = [
  'index',
  'length',
  'kind',
  'prefetchable',
  'contents',
  'mmapAreas',
  'registers',
  'hostAddress',
];

/** A copy of what a caller wants of a device. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function readDeviceOptions(options: SimulatedDeviceOptions): SimulatedDeviceOptions {
  const given = readOptions(options, PROPERTIES);
  const { bars, rom, ids, powerManagement, msi, msix, pcie } = given;
  const parts = {
    bars: bars === undefined ? undefined : readArray(bars, 'BARs').map(readBar),
    rom: part('rom', rom, ['length', 'contents']),
    ids: part('ids', ids, ['vendor', 'device', 'revision', 'class', 'subsystemVendor', 'subsystem']),
    powerManagement: part('powerManagement', powerManagement, ['noSoftReset']),
    msi: part('msi', msi, ['vectors', 'address64', 'masking']),
    msix: part('msix', msix, ['vectors', 'bar', 'tableOffset', 'pendingOffset']),
    pcie: part('pcie', pcie, ['flr']),
  };
  return { ...given, ...parts } as SimulatedDeviceOptions; // `undefined` is what was left out
}

function readBar(bar: SimulatedBar): SimulatedBar {
  return readOptions(bar, BAR_PROPERTIES, 'the parts of a BAR');
}

function part<T extends object, const K extends keyof T & string>(
  name: string,
  value: T | undefined,
  names: readonly K[],
): Pick<T, K> | undefined {
  return value === undefined ? undefined : readOptions(value, names, `the parts of ${name}`);
}
