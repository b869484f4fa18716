/**
 * A PCI function in memory: config space, BARs, DMA, interrupts and resets, without hardware or privileges.
 */
import { readArray, readOptions, requireBytes } from '../../arguments.ts';
import { type ErrorCode, PeerDmaError } from '../../errors.ts';
import { giveMissingOf } from '../../guest/spaces.ts';
import { withoutMappingsOf } from '../../guest/device-reset.ts';
import { declareDevice } from '../../memory/device-state.ts';
import type { MemoryFile } from '../../memory/memory-file.ts';
import { ConfigImage } from '../config/config-image.ts';
import { COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY } from '../config/registers.ts';
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
import { type SimulatedBus, isBus } from './simulated-bus.ts';
import { SimulatedConfig } from './simulated-config.ts';
import { SimulatedInterrupts } from './simulated-interrupts.ts';
import { SimulatedRegion } from './simulated-region.ts';
import { valueText } from '../../value-text.ts';

/** VFIO's number of config space. */
const CONFIG_INDEX = 7;
const PCI_ADDRESS = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/;

/** What {@link SimulatedDevice.edu} takes. */
export type SimulatedEduOptions = Pick<SimulatedDeviceOptions, 'bdf' | 'iommu' | 'bus' | 'resettable'> & {
  /** Where the host has placed BAR 0. */
  readonly hostAddress?: bigint;
};

/**
 * A simulated function, with the manners of one that VFIO has opened: it decodes memory, is no bus master, and a reset
 * leaves config space as it was. What it is told about itself, by {@link SimulatedDevice.raise} and the DMA calls, is the
 * device's side; the rest is its driver's.
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
  /** The files behind its BARs and its ROM. */
  readonly #files: readonly MemoryFile[];
  /** Those of them that can be mapped. */
  readonly #shown: MemoryFile[] = [];
  #lastFault: PeerDmaError | undefined;
  #closed = false;
  /** How often IOMMUs that map its memory as a dma-buf have lost it. */
  #revocations = 0;
  /** The state of its memory for which the DMA targets were last updated. */
  #seen = 'false 0';

  /**
   * Makes a device, as it is once VFIO has opened one.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_EMPTY_RANGE`, `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE` and `ERR_OVERLAP`
   * for what no PCI function can be; `ERR_SYSTEM` where there is no memory for its BARs
   */
  constructor(given: SimulatedDeviceOptions) {
    const options = readDeviceOptions(given);
    const { bdf, iommu, bus, rom } = options;
    if (typeof bdf !== 'string' || !PCI_ADDRESS.test(bdf)) {
      const text = `a PCI address is written as 0000:00:04.0, not ${valueText(bdf)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    }
    if (bus !== undefined && !isBus(bus)) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the bus of ${bdf} is a SimulatedBus`, { device: bdf });
    }
    if (iommu !== undefined) requireDma(bdf, iommu);
    this.bdf = bdf;
    const recorded = recordedConfig(options);
    const bars = layOutBars(options, recorded);
    const image = new ConfigImage(bdf, new Uint8Array(configImage(options, recorded, bars).buffer));
    this.#config = new SimulatedConfig(image, bars, {
      isConnected: (kind) => this.#interrupts.isConnected(kind),
      onReset: () => this.#resetFunction(),
      onChange: () => this.#onConfigChange(),
    });
    this.#interrupts = new SimulatedInterrupts(bdf, this.#config.vectors, (kind) => this.#canSignal(kind));
    this.interrupts = this.#interrupts;
    this.#onConfigChange(); // which starts as it is recorded
    this.#resettable = options.resettable ?? this.#config.resettable;
    this.#iommu = iommu;
    this.#registers = bars.flatMap(({ registers }) => registers ?? []);
    this.config = new SimulatedRegion({
      bdf,
      index: CONFIG_INDEX,
      length: this.#config.length,
      contents: this.#config,
      answers: () => this.#requireOpen(),
    });
    const { regions, files } = makeRegions({
      bdf,
      bars,
      romContents: rom?.contents,
      msix: this.#config.msix,
      isPending: (vector) => this.#interrupts.isPending(vector),
      answers: (bar) => (bar.kind === 'io' ? this.#answersIo() : this.#answersMemory(bar.index)),
    });
    this.regions = regions;
    this.#files = files;
    this.#declareMemory();
    this.#bus = bus;
    bus?.join(this, () => this.#reset());
  }

  /**
   * A device that has the registers of QEMU's `edu`: it moves up to 4096 bytes at a time by DMA and interrupts by its pin
   * or one message. Its DMA has all 64 bits of address, and is done when it is started.
   */
  static edu(options: SimulatedEduOptions): SimulatedDevice {
    const names = ['bdf', 'iommu', 'bus', 'resettable', 'hostAddress'] as const;
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

  /** Why its DMA came to nothing the last time that it did, since it was made or reset. */
  get lastFault(): PeerDmaError | undefined {
    return this.#lastFault;
  }

  /**
   * The device reads memory.
   *
   * @param iova where it reads
   * @param length bytes
   * @throws {PeerDmaError} `ERR_DMA_FAULT` where it may not: it is no bus master, sleeps, has no IOMMU, or nothing is mapped;
   * `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`
   */
  dmaRead(iova: bigint, length: number): Uint8Array {
    return this.#dma((iommu) => {
      const bytes = requireBytes(iommu.read(iova, length));
      if (bytes.length === length) return bytes;
      const text = `the IOMMU of ${this.bdf} read ${bytes.length} bytes for ${length}`;
      throw this.#error('ERR_DMA_FAULT', text);
    });
  }

  /**
   * The device writes memory: all of it or nothing. Throws as {@link SimulatedDevice.dmaRead}.
   *
   * @param iova where it writes
   */
  dmaWrite(iova: bigint, bytes: Uint8Array): void {
    this.#dma((iommu) => iommu.write(iova, bytes));
  }

  /**
   * The device interrupts, or another part of the host does in its stead (`error`, `request`). The pin stays asserted until
   * {@link SimulatedDevice.lowerIntx}. Messages are DMA: without bus mastering they get lost.
   *
   * @param vector its number within the kind, from 0. Default: 0
   * @returns whether an eventfd was signalled
   * @throws {PeerDmaError} `ERR_INTERRUPT_UNSUPPORTED` for a vector that it does not have; `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`
   */
  raise(kind: InterruptKind, vector = 0): boolean {
    return this.#interrupts.raise(kind, vector);
  }

  /** The device lets go of its pin. */
  lowerIntx(): void {
    this.#interrupts.lowerIntx();
  }

  /**
   * Resets the function: registers are as after power-on, the pin is let go, and it is awake. The memory of BARs keeps its
   * bytes, as that of shared-memory devices does; the rest of config space and the connected interrupts stay. DMA
   * targets unmap its BARs before the reset and map them again after it.
   *
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` where it has no way of being reset on its own; `ERR_UNMAP_FAILED`:
   * it was not reset
   */
  async reset(): Promise<void> {
    this.#requireOpen();
    if (!this.#resettable) {
      throw this.#error('ERR_RESET_UNSUPPORTED', `${this.bdf} can't be reset on its own: try the bus, by hotReset`);
    }
    await withoutMappingsOf(this.#shown, () => {
      this.#requireOpen(); // it may have been closed while targets were unmapping
      this.#reset();
    });
  }

  /**
   * Resets all devices of its bus, each as {@link SimulatedDevice.reset} does.
   *
   * @param others those that the bus has besides this one. What is not on it stays as it is
   * @throws {PeerDmaError} `ERR_RESET_UNSUPPORTED` where it has no bus of its own, or that has a device that is not among
   * these
   */
  async hotReset(others: readonly PhysicalFunction[]): Promise<readonly PhysicalFunction[]> {
    this.#requireOpen();
    const named = readArray(others, 'the other functions');
    if (this.#bus === undefined) {
      throw this.#error('ERR_RESET_UNSUPPORTED', `${this.bdf} is on no bus that can be reset`);
    }
    const bus = this.#bus;
    const requireAll = (): void => {
      const missing = bus.devices.filter((device) => device !== this && !named.includes(device));
      if (missing.length === 0) return;
      const names = missing.map(({ bdf }) => bdf).join(', ');
      const text = `a reset of the bus of ${this.bdf} would reset ${names} as well: say so with the other functions`;
      throw this.#error('ERR_RESET_UNSUPPORTED', text);
    };
    requireAll();
    const shown = bus.devices.flatMap((device) => (device instanceof SimulatedDevice ? device.#shown : []));
    await withoutMappingsOf(shown, () => {
      requireAll(); // a device may have joined the bus while targets were unmapping
      bus.reset();
    });
    return bus.devices;
  }

  /**
   * Disconnects its interrupts, leaves its bus, and releases the memory that was made for it. What IOMMUs map of its
   * BARs stays until it is unmapped: with the rules of type1 DMA reaches it, as it does with the kernel's. Everything
   * else throws `ERR_CLOSED` then, reads of its BARs by guest memory included. Idempotent.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#revocations++;
    this.#bus?.leave(this);
    this.#interrupts.close();
    for (const file of this.#files) file.close();
  }

  /** As {@link SimulatedDevice.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** VFIO keeps others from asking in D3hot alone (Linux `__vfio_pci_memory_enabled`): in D1 and D2 nobody answers. */
  #answersMemory(index: number): boolean {
    this.#requireOpen();
    if (this.#hasMemory) return this.#config.awake;
    const text = `region ${index} of ${this.bdf} does not answer: its memory decode is off, or it is in D3hot`;
    throw this.#error('ERR_BAR_DISABLED', text);
  }

  /** VFIO lets everybody ask: nobody answers then. */
  #answersIo(): boolean {
    return this.#requireOpen() && this.#config.commands(COMMAND_IO) && this.#config.awake;
  }

  #onConfigChange(): void {
    this.#seeMemory();
    this.#interrupts.switchPin(this.#config.commands(COMMAND_INTX_DISABLE));
    this.#interrupts.update();
  }

  #canSignal(kind: InterruptKind): boolean {
    if (kind === 'error' || kind === 'request') return true;
    if (!this.#config.awake) return false;
    return kind === 'intx' || this.#config.commands(COMMAND_MASTER);
  }

  #dma<T>(transfer: (iommu: SimulatedDma) => T): T {
    this.#requireOpen();
    try {
      if (!this.#config.awake) throw this.#error('ERR_DMA_FAULT', `${this.bdf} is not in D0: it can't do DMA`);
      if (!this.#config.commands(COMMAND_MASTER)) {
        const text = `${this.bdf} is no bus master: bit 2 of its Command register is off`;
        throw this.#error('ERR_DMA_FAULT', text);
      }
      if (this.#iommu === undefined) {
        throw this.#error('ERR_DMA_FAULT', `${this.bdf} has no IOMMU, and so nothing that its DMA could go to`);
      }
      return transfer(this.#iommu);
    } catch (error) {
      throw this.#faulted(error);
    }
  }

  /** What a device can ask for and nobody has is a fault, whatever else is to be said of it; what it can't ask for is not. */
  #faulted(error: unknown): unknown {
    if (!(error instanceof PeerDmaError) || error.code === 'ERR_INVALID_ARGUMENT') return error;
    if (error.code === 'ERR_DMA_FAULT') return (this.#lastFault = error);
    const text = `DMA of ${this.bdf} faulted: ${error.message}`;
    return (this.#lastFault = new PeerDmaError('ERR_DMA_FAULT', text, { device: this.bdf, cause: error }));
  }

  /** To be called while no target maps its memory: the targets map it again afterwards. */
  #reset(): void {
    this.#config.wake();
    this.#resetFunction();
    this.#seen = this.#memoryState;
  }

  /** Its BARs are memory of a device: guest memory accesses them by their regions, and IOMMUs lose them with it. */
  #declareMemory(): void {
    const accessible = (): boolean => this.#hasMemory;
    const revocations = (): number => this.#revocations;
    for (const region of this.regions) {
      const backing = region?.mmapAreas.length ? region.backing() : 'private';
      if (region === undefined || backing === 'private') continue;
      this.#shown.push(backing.file);
      declareDevice(backing.file, {
        get accessible() {
          return accessible();
        },
        get revocations() {
          return revocations();
        },
        access: {
          read: (offset, into) => into.set(region.read(offset, into.length)),
          write: (offset, bytes) => region.write(offset, bytes),
        },
      });
    }
  }

  get #hasMemory(): boolean {
    return this.#config.commands(COMMAND_MEMORY) && !this.#config.inD3;
  }

  /** What was mapped of its memory as a dma-buf is void once it stops answering, and can be had anew once it answers again. */
  #seeMemory(): void {
    if (this.#seen.startsWith('true') && !this.#hasMemory) this.#revocations++;
    if (this.#seen === this.#memoryState) return;
    this.#seen = this.#memoryState;
    giveMissingOf(this.#shown);
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
    return new PeerDmaError(code, message, { device: this.bdf });
  }
}

function requireDma(bdf: string, iommu: SimulatedDma): void {
  const { read, write } = readOptions(iommu, ['read', 'write'], `the methods of the IOMMU of ${bdf}`);
  if (typeof read === 'function' && typeof write === 'function') return;
  const text = `the DMA of ${bdf} goes through what has read and write, such as a SimulatedIommu`;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { device: bdf });
}
