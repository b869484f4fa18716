/** The options of a simulated device. */
import type { AddressRange } from '../../address-range.ts';
import { readArray, readOptions } from '../../arguments.ts';
import type { MemoryFile } from '../../memory/memory-file.ts';
import type { SimulatedBus } from './simulated-bus.ts';

/** Options of a {@link SimulatedDevice}. */
export interface SimulatedDeviceOptions {
  /** PCI address, such as `0000:00:04.0`. */
  readonly bdf: string;
  /** Default: none. */
  readonly bars?: readonly SimulatedBar[];
  /** An expansion ROM: readable, not mappable. Default: none */
  readonly rom?: {
    /** Bytes. */
    readonly length: bigint;
    /** Its first bytes. Default: zeros */
    readonly contents?: Uint8Array;
  };
  /**
   * A recorded config space: 64 to 4096 bytes, a multiple of 4. Without it, config space is built from the options
   * below.
   *
   * The registers of the given BARs are updated; a BAR without `kind` has the recorded kind.
   */
  readonly config?: Uint8Array;
  /**
   * The IDs of the device. With a recorded config space: vendor and device of a virtual function, which has none
   * there.
   */
  readonly ids?: SimulatedIds;
  /** Adds power management. */
  readonly powerManagement?: {
    /** Whether it keeps its registers on the transition from D3hot to D0. Default: false */
    readonly noSoftReset?: boolean;
  };
  /** Adds MSI. */
  readonly msi?: {
    /** 1, 2, 4, 8, 16 or 32. Default: 1 */
    readonly vectors?: number;
    /** Whether it supports 64-bit message addresses. Default: true */
    readonly address64?: boolean;
    /** Whether it has a mask bit for each vector. Default: false */
    readonly masking?: boolean;
  };
  /** Adds MSI-X. */
  readonly msix?: SimulatedMsix;
  /** Makes it a PCI Express endpoint, with 4096 bytes of config space. */
  readonly pcie?: {
    /** Whether it has function-level reset. Default: true */
    readonly flr?: boolean;
  };
  /**
   * Adds function-level reset for conventional PCI. It is of the PCI ECN "Advanced Capabilities for Conventional PCI".
   */
  readonly advancedFeatures?: boolean;
  /** Whether it has INTA#. Default: as recorded; false in a built config space */
  readonly interruptPin?: boolean;
  /**
   * Whether {@link SimulatedDevice.reset} is supported. Default: if config space has a way to reset the function alone
   */
  readonly resettable?: boolean;
  /** The target of its DMA: a {@link SimulatedIommu}. Without one, every DMA faults. */
  readonly iommu?: SimulatedDma;
  /** Its bus for {@link SimulatedDevice.hotReset}. Default: none, so that hot reset is not supported */
  readonly bus?: SimulatedBus;
  /** Lets it migrate. Its registers need `save` and `load`. Default: it cannot migrate */
  readonly migration?: SimulatedMigrationOptions;
}

/** The migration features of a simulated device. */
export interface SimulatedMigrationOptions {
  /** Whether it transfers data while it runs. Default: true */
  readonly preCopy?: boolean;
  /** Whether it has the state `running-p2p`, in which it does no DMA. Default: true */
  readonly p2p?: boolean;
  /** Whether it logs its DMA writes. Default: true */
  readonly dmaLog?: boolean;
}

/** The target of a device's DMA, by IOVA. It throws `ERR_DMA_FAULT`. */
export interface SimulatedDma {
  /**
   * Reads for the device.
   *
   * @param iova start address
   * @param length bytes
   */
  read(iova: bigint, length: number): Uint8Array;
  /**
   * Writes for the device: all bytes or none.
   *
   * @param iova start address
   */
  write(iova: bigint, bytes: Uint8Array): void;
}

/** The IDs of a device. */
export interface SimulatedIds {
  /** Default: 0x1234, which is not assigned */
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

/** The location of the MSI-X structures. Offsets are multiples of 8 in a BAR of the device. */
export interface SimulatedMsix {
  /** 1 to 2048. */
  readonly vectors: number;
  /** Number of the BAR with the table (16 bytes per vector) and the pending bits. */
  readonly bar: number;
  /** Default: 0 */
  readonly tableOffset?: bigint;
  /** Default: after the table */
  readonly pendingOffset?: bigint;
}

/** A BAR of a simulated device: mappable memory, or registers. */
export interface SimulatedBar {
  /** 0 to 5. A `memory64` BAR also takes the next register. */
  readonly index: number;
  /** Bytes. The register has the next power of two. */
  readonly length: bigint;
  /** Default: as recorded; `memory32` in a built config space */
  readonly kind?: 'memory32' | 'memory64' | 'io';
  /** Default: as recorded; false in a built config space */
  readonly prefetchable?: boolean;
  /**
   * Its memory, owned by the caller. Default: zeros in a file of its own
   *
   * Devices may share it: each BAR has its own handle, which `DeviceRegion.backing()` returns.
   */
  readonly contents?: MemoryFile;
  /** The mappable parts, as offsets. Default: all of a memory BAR in whole pages; nothing of I/O or registers */
  readonly mmapAreas?: readonly AddressRange[];
  /** Makes it registers instead of memory. */
  readonly registers?: SimulatedRegisters;
  /** Its physical address on the host: a multiple of its length. Default: unknown, or as recorded in config space */
  readonly hostAddress?: bigint;
}

/** Registers behind a BAR. Each access has 1, 2, 4 or 8 bytes and is naturally aligned. */
export interface SimulatedRegisters {
  /**
   * Reads a register.
   *
   * @param offset bytes from the start of the BAR; a multiple of the length
   * @param length bytes: 1, 2, 4 or 8
   */
  read(offset: bigint, length: number): Uint8Array;
  /**
   * Writes a register.
   *
   * @param offset bytes from the start of the BAR; a multiple of the length
   */
  write(offset: bigint, bytes: Uint8Array): void;
  /** Restores the power-on state, on a reset of the function. */
  reset?(): void;
  /** Returns the state of all registers, for a migration. */
  save?(): Uint8Array;
  /** Restores the state that `save` of the same registers returned in another device. */
  load?(state: Uint8Array): void;
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
  'migration',
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

/** Returns a copy of the options. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function readDeviceOptions(options: SimulatedDeviceOptions): SimulatedDeviceOptions {
  const given = readOptions(options, PROPERTIES);
  const { bars, rom, ids, powerManagement, msi, msix, pcie, migration } = given;
  const parts = {
    bars: bars === undefined ? undefined : readArray(bars, 'BARs').map(readBar),
    rom: part('rom', rom, ['length', 'contents']),
    ids: part('ids', ids, ['vendor', 'device', 'revision', 'class', 'subsystemVendor', 'subsystem']),
    powerManagement: part('powerManagement', powerManagement, ['noSoftReset']),
    msi: part('msi', msi, ['vectors', 'address64', 'masking']),
    msix: part('msix', msix, ['vectors', 'bar', 'tableOffset', 'pendingOffset']),
    pcie: part('pcie', pcie, ['flr']),
    migration: part('migration', migration, ['preCopy', 'p2p', 'dmaLog']),
  };
  return { ...given, ...parts } as SimulatedDeviceOptions; // omitted options are `undefined`
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
