/** A simulated PCI function without hardware or privileges. It has config space, BARs, DMA, interrupts and resets. */
import { type AbortOptions, readSignal, runAbortable, throwIfAborted } from '../../abort.ts';
import { readArray, readOptions, requireBytes } from '../../arguments.ts';
import { AddressRange } from '../../address-range.ts';
import { type ErrorCode, PeerDmaError, asError } from '../../errors.ts';
import { retryDeviceMemoryOf, runWhileUnmappedEverywhere } from '../../guest/device-reset.ts';
import type { SharedFile } from '../../memory/shared-file.ts';
import { type MemoryFile, fileMemoryOf } from '../../memory/memory-file.ts';
import { ConfigImage } from '../config/config-image.ts';
import { COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY } from '../config/registers.ts';
import type { DeviceMigration } from '../migration/device-migration.ts';
import type { DeviceInterrupts, DeviceRegion, InterruptKind, PhysicalFunction } from '../physical-function.ts';
import { layOutBars } from './bar-layout.ts';
import { configImage, recordedConfig } from './config-image.ts';
import { EDU_IDS, EDU_REGISTERS_LENGTH, EduRegisters } from './edu-registers.ts';
import {
  type SimulatedDeviceOptions,
  type SimulatedDma,
  type SimulatedRegisters,
  readDeviceOptions,
} from './options.ts';
import { makeRegions } from './make-regions.ts';
import { DmaQueue } from './migration/dma-queue.ts';
import { migratedDevice } from './migration/migrated-device.ts';
import { SimulatedMigration } from './migration/simulated-migration.ts';
import { type SimulatedBus, isBus } from './simulated-bus.ts';
import { SimulatedConfig } from './simulated-config.ts';
import { SimulatedInterrupts } from './simulated-interrupts.ts';
import { SimulatedRegion } from './simulated-region.ts';
import { requireBigint } from '../../number-types.ts';
import { INSPECT, objectText } from '../../object-text.ts';
import { valueText } from '../../value-text.ts';

/** VFIO's region index of config space. */
const CONFIG_INDEX = 7;
const PCI_ADDRESS = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/;

/** Options of {@link SimulatedDevice.edu}. */
export type SimulatedEduOptions = Pick<SimulatedDeviceOptions, 'bdf' | 'iommu' | 'bus' | 'resettable' | 'migration'> & {
  /** Physical address of BAR 0 on the host. */
  readonly hostAddress?: bigint;
};

/**
 * A simulated function that behaves like one opened by VFIO.
 *
 * It decodes memory, is not a bus master, and a reset keeps config space. {@link SimulatedDevice.raise} and the DMA
 * methods are the device's side; everything else is its driver's side.
 */
export class SimulatedDevice implements PhysicalFunction {
  readonly bdf: string;
  readonly config: DeviceRegion;
  readonly regions: readonly (DeviceRegion | undefined)[];
  readonly interrupts: DeviceInterrupts;
  readonly #config: SimulatedConfig;
  readonly #interrupts: SimulatedInterrupts;
  readonly #resettable: boolean;
  readonly #iommu: SimulatedDma | undefined;
  readonly #bus: SimulatedBus | undefined;
  readonly #registers: readonly SimulatedRegisters[];
  /** The files behind its BARs and its ROM, by index. */
  readonly #files: ReadonlyMap<number, MemoryFile>;
  /** The mappable ones among these files. */
  readonly #mappableFiles: SharedFile[] = [];
  readonly #queue = new DmaQueue(({ iova, bytes }) => this.#writeQueued(iova, bytes));
  readonly #migration: SimulatedMigration | undefined;
  #lastFault: PeerDmaError | undefined;
  #closed = false;
  /** How often its memory was revoked from IOMMUs that map it as a dma-buf. */
  #revocations = 0;
  /** The memory state at the last update of the DMA targets. */
  #reportedState = 'false 0';

  /**
   * Creates a device in the state in which VFIO opens one.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_EMPTY_RANGE`, `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE` and
   * `ERR_OVERLAP` for options that no PCI function can have; `ERR_SYSTEM` if there is no memory for its BARs
   */
  constructor(given: SimulatedDeviceOptions) {
    const options = readDeviceOptions(given);
    const { bdf, iommu, bus, rom } = options;
    if (typeof bdf !== 'string' || !PCI_ADDRESS.test(bdf)) {
      const text = `a PCI address is written as 0000:00:04.0, not ${valueText(bdf)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    }
    if (bus !== undefined && !isBus(bus)) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the bus of ${bdf} is a SimulatedBus`, { bdf });
    }
    if (iommu !== undefined) requireDma(bdf, iommu);
    this.bdf = bdf;
    const recorded = recordedConfig(options);
    const bars = layOutBars(options, recorded);
    const image = new ConfigImage(bdf, new Uint8Array(configImage(options, recorded, bars).buffer));
    this.#config = new SimulatedConfig(image, bars, {
      isConnected: (kind) => this.#interrupts.isConnected(kind),
      isPinAsserted: () => this.#interrupts.isPinAsserted,
      onReset: () => this.#resetFunction(),
      onChange: () => this.#onConfigChange(),
    });
    this.#interrupts = new SimulatedInterrupts(bdf, this.#config.vectors, (kind) => this.#canSignal(kind));
    this.interrupts = this.#interrupts;
    this.#onConfigChange(); // a recorded config space is the initial state
    this.#resettable = options.resettable ?? this.#config.resettable;
    this.#iommu = iommu;
    this.#registers = bars.flatMap(({ registers }) => registers ?? []);
    this.config = new SimulatedRegion({
      bdf,
      index: CONFIG_INDEX,
      length: this.#config.length,
      contents: this.#config,
      decodes: () => this.#requireOpen(),
    });
    const { regions, files } = makeRegions({
      bdf,
      bars,
      romContents: rom?.contents,
      msix: this.#config.msix,
      isPending: (vector) => this.#interrupts.isPending(vector),
      decodes: (bar) => (bar.kind === 'io' ? this.#decodesIo() : this.#decodesMemory(bar.index)),
    });
    this.regions = regions;
    this.#files = files;
    if (options.migration !== undefined) {
      const requireOpen = (): void => void this.#requireOpen();
      const parts = {
        config: this.#config,
        interrupts: this.#interrupts,
        queue: this.#queue,
        bars,
        files,
        requireOpen,
      };
      this.#migration = new SimulatedMigration(migratedDevice(bdf, parts), options.migration);
    }
    this.#declareMemory();
    this.#bus = bus;
    bus?.join(this, () => this.#reset());
  }

  /**
   * Creates a device with the registers of QEMU's `edu`.
   *
   * It transfers up to 4096 bytes at a time by DMA and interrupts by its pin or one message. Its DMA has 64-bit
   * addresses and completes synchronously.
   */
  static edu(options: SimulatedEduOptions): SimulatedDevice {
    const names = ['bdf', 'iommu', 'bus', 'resettable', 'migration', 'hostAddress'] as const;
    const { hostAddress, ...rest } = readOptions(options, names);
    const registers = new EduRegisters(rest.bdf, {
      read: (iova, length) => device.dmaRead(iova, length),
      write: (iova, bytes) => device.dmaWrite(iova, bytes),
      raise: () => device.raise(device.#interrupts.isConnected('msi') ? 'msi' : 'intx'),
      lower: () => device.lowerIntx(),
      fault: (error) => (device.#lastFault = error),
    });
    const bar = { index: 0, length: EDU_REGISTERS_LENGTH, registers };
    const device: SimulatedDevice = new SimulatedDevice({
      ...rest,
      bars: [hostAddress === undefined ? bar : { ...bar, hostAddress }],
      ids: EDU_IDS,
      msi: {},
      interruptPin: true,
    });
    return device;
  }

  /** Its migration; `undefined` without the option `migration`. */
  get migration(): DeviceMigration | undefined {
    return this.#migration;
  }

  /** Number of DMA writes that are queued and not done. */
  get queuedDmaWrites(): number {
    return this.#queue.length;
  }

  /** The last DMA fault since it was created or reset. */
  get lastFault(): PeerDmaError | undefined {
    return this.#lastFault;
  }

  /**
   * Reads memory by DMA.
   *
   * @param iova start address
   * @param length bytes
   * @throws {PeerDmaError} `ERR_DMA_FAULT` if it is not a bus master, not in D0 or has no IOMMU, or if the range is
   * not mapped; `ERR_MIGRATION_STATE` in migration states without DMA; `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`
   */
  dmaRead(iova: bigint, length: number): Uint8Array {
    this.#requireActive();
    return this.#dma((iommu) => {
      const bytes = requireBytes(iommu.read(iova, length));
      if (bytes.length === length) return bytes;
      const text = `the IOMMU of ${this.bdf} read ${bytes.length} bytes for ${length}`;
      throw this.#error('ERR_DMA_FAULT', text);
    });
  }

  /**
   * Writes memory by DMA: all bytes or none.
   *
   * @param iova start address
   * @throws {PeerDmaError} as {@link SimulatedDevice.dmaRead}
   */
  dmaWrite(iova: bigint, bytes: Uint8Array): void {
    this.#requireActive();
    this.#write(iova, bytes);
  }

  /**
   * Queues a DMA write. The device does queued writes in order, one in a turn of the event loop.
   *
   * A write that faults is dropped, and {@link SimulatedDevice.lastFault} is set. Writes that have not begun when the
   * device is stopped for a migration are part of its data: the device that takes the data does them.
   *
   * @param iova start address
   * @param bytes are copied
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`
   */
  queueDmaWrite(iova: bigint, bytes: Uint8Array): void {
    this.#requireOpen();
    requireBigint(iova, 'iova', this.bdf);
    this.#queue.push({ iova, bytes: requireBytes(bytes).slice() });
  }

  /**
   * Raises an interrupt of the device, or one of the host on its behalf (`error`, `request`).
   *
   * The pin stays asserted until {@link SimulatedDevice.lowerIntx}. Messages are DMA: without bus mastering they are
   * lost.
   *
   * @param vector its number within the kind, from 0. Default: 0
   * @returns whether an eventfd was signalled
   * @throws {PeerDmaError} `ERR_INTERRUPT_UNSUPPORTED` for a vector that it does not have; `ERR_INVALID_ARGUMENT`,
   * `ERR_CLOSED`
   */
  raise(kind: InterruptKind, vector = 0): boolean {
    return this.#interrupts.raise(kind, vector);
  }

  /** Deasserts the pin. */
  lowerIntx(): void {
    this.#interrupts.lowerIntx();
  }

  /**
   * Resets the function. Registers have their power-on values, the pin is deasserted, the power state is D0.
   *
   * The memory of BARs keeps its bytes, as in shared-memory devices; the rest of config space and the connected
   * interrupts are kept. DMA targets unmap its BARs before the reset and map them again after it.
   *
   * @param options.signal as for {@link VfioDevice.reset}
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` if it cannot be reset on its own; `ERR_UNMAP_FAILED`: it was not
   * reset
   * @throws the reason of the signal
   */
  async reset(options: AbortOptions = {}): Promise<void> {
    const signal = readSignal(options);
    this.#requireOpen();
    if (!this.#resettable) {
      throw this.#error(
        'ERR_RESET_UNSUPPORTED',
        `${this.bdf} cannot be reset on its own. Reset its bus with hotReset.`,
      );
    }
    const reset = (): void => {
      throwIfAborted(signal);
      this.#requireOpen(); // it may have been closed while targets were unmapping
      this.#reset();
    };
    await runAbortable(signal, (onTurn) => runWhileUnmappedEverywhere(this.#mappableFiles, reset, [], onTurn));
  }

  /**
   * Resets all devices of its bus, each as {@link SimulatedDevice.reset} does.
   *
   * @param others the other devices of the bus. Devices that are not on it are unaffected
   * @param options.signal as for {@link VfioDevice.reset}
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` without a bus, or if the bus has a device that is not among these
   * @throws the reason of the signal
   */
  async hotReset(
    others: readonly PhysicalFunction[],
    options: AbortOptions = {},
  ): Promise<readonly PhysicalFunction[]> {
    const signal = readSignal(options);
    this.#requireOpen();
    const named = readArray(others, 'the other functions');
    if (this.#bus === undefined) {
      throw this.#error('ERR_RESET_UNSUPPORTED', `${this.bdf} has no bus to reset. Create it with the option bus.`);
    }
    const bus = this.#bus;
    const requireAll = (): void => {
      const missing = bus.devices.filter((device) => device !== this && !named.includes(device));
      if (missing.length === 0) return;
      const names = missing.map(({ bdf }) => bdf).join(', ');
      const text = `a reset of the bus of ${this.bdf} would reset ${names} as well. Pass them as the other functions.`;
      throw this.#error('ERR_RESET_UNSUPPORTED', text);
    };
    requireAll();
    const mapped = bus.devices.flatMap((device) => (device instanceof SimulatedDevice ? device.#mappableFiles : []));
    const reset = (): void => {
      throwIfAborted(signal);
      requireAll(); // a device may have joined the bus while targets were unmapping
      bus.reset();
    };
    await runAbortable(signal, (onTurn) => runWhileUnmappedEverywhere(mapped, reset, [], onTurn));
    return bus.devices;
  }

  /**
   * Disconnects its interrupts, leaves its bus, and releases the memory that was created for it. Idempotent.
   *
   * IOMMU mappings of its BARs remain until they are unmapped: with type1 rules DMA still reaches them, as with the
   * kernel's type1. All other methods throw `ERR_CLOSED` then, and so do reads of its BARs through guest memory.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#revocations++;
    this.#bus?.leave(this);
    this.#interrupts.close();
    for (const file of this.#files.values()) file.close();
  }

  /** As {@link SimulatedDevice.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'SimulatedDevice', () => {
      if (this.#closed) return [this.bdf, 'closed'];
      return [this.bdf, `memory decode: ${this.#hasMemory ? 'on' : 'off'}`, 'open'];
    });
  }

  /**
   * Returns whether memory accesses reach the device. VFIO rejects them only with decode off or in D3hot.
   *
   * In D1 and D2 the access is made, and no device responds (Linux `__vfio_pci_memory_enabled`).
   */
  #decodesMemory(index: number): boolean {
    this.#requireOpen();
    if (this.#hasMemory) return this.#config.isInD0;
    const text = `region ${index} of ${this.bdf} does not decode: its memory decode is off, or it is in D3hot`;
    throw this.#error('ERR_BAR_DISABLED', text);
  }

  /** Returns whether I/O accesses reach the device. VFIO does not reject any. */
  #decodesIo(): boolean {
    return this.#requireOpen() && this.#config.isCommandSet(COMMAND_IO) && this.#config.isInD0;
  }

  #onConfigChange(): void {
    this.#updateMemoryState();
    this.#interrupts.setPinDisabled(this.#config.isCommandSet(COMMAND_INTX_DISABLE));
    this.#interrupts.update();
  }

  #canSignal(kind: InterruptKind): boolean {
    if (kind === 'error' || kind === 'request') return true;
    if (!this.#config.isInD0) return false;
    return kind === 'intx' || this.#config.isCommandSet(COMMAND_MASTER);
  }

  #dma<T>(transfer: (iommu: SimulatedDma) => T): T {
    this.#requireOpen();
    try {
      if (!this.#config.isInD0) throw this.#error('ERR_DMA_FAULT', `${this.bdf} is not in D0, so it cannot do DMA`);
      if (!this.#config.isCommandSet(COMMAND_MASTER)) {
        const text = `${this.bdf} is not a bus master: bit 2 of its Command register is 0`;
        throw this.#error('ERR_DMA_FAULT', text);
      }
      if (this.#iommu === undefined) {
        throw this.#error('ERR_DMA_FAULT', `${this.bdf} has no IOMMU, so its DMA has no target`);
      }
      return transfer(this.#iommu);
    } catch (error) {
      throw this.#dmaFault(error);
    }
  }

  #write(iova: bigint, bytes: Uint8Array): void {
    this.#dma((iommu) => iommu.write(iova, bytes));
    if (bytes.length > 0) this.#migration?.dmaLog?.record(AddressRange.of(iova, BigInt(bytes.length)));
  }

  /** Does a queued write. The device does not detect a fault. */
  #writeQueued(iova: bigint, bytes: Uint8Array): void {
    if (this.#closed) return;
    try {
      this.#write(iova, bytes);
    } catch (error) {
      this.#lastFault = asError(error) as PeerDmaError;
    }
  }

  #requireActive(): void {
    this.#requireOpen();
    const migration = this.#migration;
    if (migration?.isActive !== false) return;
    const text = `${this.bdf}: DMA failed: it does none in the migration state ${migration.state}. Let it run again.`;
    throw this.#error('ERR_MIGRATION_STATE', text);
  }

  /** Converts an error into a DMA fault, unless the request itself is invalid. */
  #dmaFault(error: unknown): unknown {
    if (!(error instanceof PeerDmaError) || error.code === 'ERR_INVALID_ARGUMENT') return error;
    if (error.code === 'ERR_DMA_FAULT') return (this.#lastFault = error);
    const text = `DMA of ${this.bdf} faulted: ${error.message}`;
    return (this.#lastFault = new PeerDmaError('ERR_DMA_FAULT', text, { bdf: this.bdf, cause: error }));
  }

  /** Resets the device. Call it while no target maps its memory: the targets map it again afterwards. */
  #reset(): void {
    this.#config.wake();
    this.#queue.replace([]);
    this.#migration?.reset();
    this.#resetFunction();
    this.#reportedState = this.#memoryState;
  }

  /**
   * Declares its BARs as device memory.
   *
   * Guest memory accesses them through their regions, and IOMMUs follow their revocations.
   */
  #declareMemory(): void {
    const accessible = (): boolean => this.#hasMemory;
    const revocations = (): number => this.#revocations;
    const isStopped = (): boolean => this.#migration?.isAccepting === false;
    for (const region of this.regions) {
      const backing = region?.mmapAreas.length ? region.backing() : 'private';
      if (region === undefined || backing === 'private') continue;
      const memory = fileMemoryOf(backing.file);
      this.#mappableFiles.push(memory);
      memory.device = {
        get accessible() {
          return accessible();
        },
        get revocations() {
          return revocations();
        },
        get isStopped() {
          return isStopped();
        },
        access: {
          read: (offset, into) => into.set(region.read(offset, into.length)),
          write: (offset, bytes) => region.write(offset, bytes),
        },
      };
    }
  }

  get #hasMemory(): boolean {
    return this.#config.isCommandSet(COMMAND_MEMORY) && !this.#config.isInD3Hot;
  }

  /** Updates targets after a change of memory decode. Mappings of dma-bufs are revoked when it stops decoding. */
  #updateMemoryState(): void {
    if (this.#reportedState.startsWith('true') && !this.#hasMemory) this.#revocations++;
    if (this.#reportedState === this.#memoryState) return;
    this.#reportedState = this.#memoryState;
    retryDeviceMemoryOf(this.#mappableFiles);
  }

  get #memoryState(): string {
    return `${this.#hasMemory} ${this.#revocations}`;
  }

  #resetFunction(): void {
    this.#revocations++;
    this.#interrupts.reset();
    this.#lastFault = undefined;
    for (const registers of this.#registers) registers.reset?.();
  }

  #requireOpen(): true {
    if (!this.#closed) return true;
    throw this.#error('ERR_CLOSED', `the simulated device ${this.bdf} is closed`);
  }

  #error(code: ErrorCode, message: string): PeerDmaError {
    return new PeerDmaError(code, message, { bdf: this.bdf });
  }
}

function requireDma(bdf: string, iommu: SimulatedDma): void {
  const { read, write } = readOptions(iommu, ['read', 'write'], `the methods of the IOMMU of ${bdf}`);
  if (typeof read === 'function' && typeof write === 'function') return;
  const text = `the DMA of ${bdf} is an object with read and write, such as a SimulatedIommu`;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf });
}
