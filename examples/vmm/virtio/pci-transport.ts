/**
 * A virtio device on the PCI bus of a guest: its registers, queues and interrupt pin.
 *
 * It has no MSI-X. The specification requires access to the BAR by config space (`VIRTIO_PCI_CAP_PCI_CFG`), which only
 * firmware uses: it is missing. Source: Virtual I/O Device specification 1.2, 4.1.
 */
import { type AddressRange, type GuestMemory, type GuestPciFunction, PeerDmaError } from 'peerdma';
import { VERSION_1, type VirtioDevice } from './device.ts';
import { type Structure, VirtioPciConfig } from './pci-config.ts';
import { QueueRegisters } from './queue-registers.ts';
import { QueueError, SplitQueue } from './split-queue.ts';

/** Kinds of structures. */
const COMMON = { kind: 1, offset: 0x0000, length: 0x38 };
const ISR = { kind: 3, offset: 0x1000, length: 1 };
const DEVICE = { kind: 4, offset: 0x2000, length: 0x1000 };
/** One address for all queues, which the written number distinguishes. Its last bytes are their distance, 0. */
const NOTIFY = { kind: 2, offset: 0x3000, length: 4, more: [0, 0, 0, 0] };
const STRUCTURES: readonly Structure[] = [COMMON, NOTIFY, ISR, DEVICE];
const BAR_LENGTH = 0x4000;

/** Bits of the status of the device. */
const FEATURES_OK = 8;
const DRIVER_OK = 4;
const NEEDS_RESET = 64;
/** Bits of the interrupt status. */
const QUEUE_INTERRUPT = 1;
const CONFIG_INTERRUPT = 2;
const NO_VECTOR = 0xffff;

/** Options of {@link VirtioPciTransport}. */
export interface TransportOptions {
  readonly memory: GuestMemory;
  readonly device: VirtioDevice;
  /** Sets the level of the pin. */
  setPin(isAsserted: boolean): void;
  /** Receives errors that no driver has caused. */
  failed(error: unknown): void;
}

/** A queue that the driver has enabled. */
interface ActiveQueue {
  readonly queue: SplitQueue;
  /** Whether the device answers buffers now, and whether more may have arrived meanwhile. */
  isBusy: boolean;
  isNotified: boolean;
}

/** A function for `PciHostBridge.add`. */
export class VirtioPciTransport implements GuestPciFunction {
  readonly #options: TransportOptions;
  readonly #config: VirtioPciConfig;
  #queues: QueueRegisters[] = [];
  #active = new Map<number, ActiveQueue>();
  /** The last call of the device, and the number of those that have not ended. */
  #lastCall = Promise.resolve();
  #calls = 0;
  #status = 0;
  /** The status that the driver reads after a reset, as long as the device works on a request. */
  #statusBefore = 0;
  #interrupts = 0;
  #generation = 0;
  /** The configuration of that generation. */
  #generationOf = new Uint8Array();
  #deviceFeatureHalf = 0;
  #driverFeatureHalf = 0;
  #driverFeatures = 0n;
  #selected = 0;
  #isClosed = false;

  constructor(options: TransportOptions) {
    this.#options = options;
    const { type } = options.device;
    this.#config = new VirtioPciConfig({ type, barLength: BAR_LENGTH, structures: STRUCTURES });
    options.device.watchConfig(() => {
      if ((this.#status & DRIVER_OK) !== 0) this.#interrupt(CONFIG_INTERRUPT);
    });
    this.#reset();
  }

  get decodedBars(): readonly AddressRange[] {
    const { bar } = this.#config;
    return bar === undefined ? [] : [bar];
  }

  configRead(offset: number, size: number): number {
    return this.#config.read(offset, size, this.#interrupts !== 0);
  }

  configWrite(offset: number, size: number, value: number): void {
    this.#config.write(offset, size, value);
    this.#updatePin();
  }

  mmioRead(gpa: bigint, length: number): Uint8Array {
    const offset = this.#offsetOf(gpa);
    const bytes = new Uint8Array(length);
    if (offset >= DEVICE.offset && offset < NOTIFY.offset) {
      bytes.set(
        this.#options.device
          .config()
          .subarray(offset - DEVICE.offset)
          .subarray(0, length),
      );
    } else if (offset === ISR.offset) {
      bytes[0] = this.#interrupts;
      this.#interrupts = 0;
      this.#updatePin();
    } else if (offset < COMMON.length) {
      let value = this.#readCommon(offset);
      for (let index = 0; index < length; index++, value >>= 8n) bytes[index] = Number(value & 0xffn);
    }
    return bytes;
  }

  mmioWrite(gpa: bigint, bytes: Uint8Array): void {
    const offset = this.#offsetOf(gpa);
    const value = bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    if (offset < COMMON.length) this.#writeCommon(offset, value);
    else if (offset === NOTIFY.offset) this.#notify(Number(value & 0xffffn));
  }

  /** The offset of an access in the BAR, which the bridge has checked. */
  #offsetOf(gpa: bigint): number {
    return Number(gpa - (this.#config.bar?.start ?? gpa));
  }

  /** Reads a register of the common configuration (4.1.4.3). An access has the width of its register. */
  #readCommon(offset: number): bigint {
    const queue = this.#queues[this.#selected];
    const half = (features: bigint, index: number): bigint =>
      index < 2 ? (features >> BigInt(32 * index)) & 0xffff_ffffn : 0n;
    const registers: Readonly<Record<number, () => bigint | number>> = {
      0x00: () => this.#deviceFeatureHalf,
      0x04: () => half(this.#options.device.features | VERSION_1, this.#deviceFeatureHalf),
      0x08: () => this.#driverFeatureHalf,
      0x0c: () => half(this.#driverFeatures, this.#driverFeatureHalf),
      0x10: () => NO_VECTOR,
      0x12: () => this.#queues.length,
      0x14: () => (this.#status === 0 && this.#calls > 0 ? this.#statusBefore : this.#status),
      0x15: () => this.#currentGeneration(),
      0x16: () => this.#selected,
      0x18: () => queue?.size ?? 0,
      0x1a: () => NO_VECTOR,
      0x1c: () => (queue?.isEnabled === true ? 1 : 0),
      0x20: () => queue?.descriptors ?? 0n,
      0x24: () => (queue?.descriptors ?? 0n) >> 32n,
      0x28: () => queue?.driver ?? 0n,
      0x2c: () => (queue?.driver ?? 0n) >> 32n,
      0x30: () => queue?.device ?? 0n,
      0x34: () => (queue?.device ?? 0n) >> 32n,
    };
    return BigInt(registers[offset]?.() ?? 0);
  }

  /** Counts the changes of the configuration that the driver may have read. */
  #currentGeneration(): number {
    const config = this.#options.device.config();
    const isSame = config.every((byte, index) => byte === this.#generationOf[index]);
    if (!isSame) this.#generation = (this.#generation + 1) & 0xff;
    this.#generationOf = Uint8Array.from(config);
    return this.#generation;
  }

  #writeCommon(offset: number, value: bigint): void {
    const queue = this.#queues[this.#selected];
    const isFixed = queue === undefined || queue.isEnabled;
    const address = (name: 'descriptors' | 'driver' | 'device', shift: bigint): void => {
      if (isFixed) return;
      queue[name] = (queue[name] & (0xffff_ffffn << (32n - shift))) | ((value & 0xffff_ffffn) << shift);
    };
    const low = Number(value & 0xffff_ffffn);
    if (offset === 0x00) this.#deviceFeatureHalf = low;
    else if (offset === 0x08) this.#driverFeatureHalf = low;
    else if (offset === 0x0c) this.#acceptFeatures(value & 0xffff_ffffn);
    else if (offset === 0x14) this.#setStatus(low & 0xff);
    else if (offset === 0x16) this.#selected = low & 0xffff;
    else if (offset === 0x18 && !isFixed) queue.setSize(low & 0xffff);
    else if (offset === 0x1c && !isFixed && (low & 1) !== 0) this.#enable(queue);
    else if (offset >= 0x20 && offset < 0x28) address('descriptors', offset === 0x24 ? 32n : 0n);
    else if (offset >= 0x28 && offset < 0x30) address('driver', offset === 0x2c ? 32n : 0n);
    else if (offset >= 0x30 && offset < 0x38) address('device', offset === 0x34 ? 32n : 0n);
  }

  #acceptFeatures(half: bigint): void {
    if (this.#driverFeatureHalf > 1 || (this.#status & FEATURES_OK) !== 0) return;
    const shift = BigInt(32 * this.#driverFeatureHalf);
    this.#driverFeatures = (this.#driverFeatures & ~(0xffff_ffffn << shift)) | (half << shift);
  }

  #setStatus(status: number): void {
    if (status === 0) return this.#reset();
    const { features, required } = this.#options.device;
    const isOffered = (this.#driverFeatures & ~(features | VERSION_1)) === 0n;
    const hasRequired = (~this.#driverFeatures & (required | VERSION_1)) === 0n;
    const accepted = isOffered && hasRequired ? status : status & ~FEATURES_OK;
    this.#status = accepted | (this.#status & NEEDS_RESET);
  }

  #enable(queue: QueueRegisters): void {
    queue.isEnabled = true;
    const active = { queue: new SplitQueue(this.#options.memory, queue.addresses), isBusy: false, isNotified: false };
    this.#active.set(this.#selected, active);
  }

  #reset(): void {
    this.#queues = this.#options.device.queueSizes.map((size) => new QueueRegisters(size));
    this.#endQueues();
    if (this.#status !== 0) this.#statusBefore = this.#status;
    [this.#status, this.#interrupts, this.#driverFeatures, this.#selected] = [0, 0, 0n, 0];
    this.#updatePin();
  }

  /** Ends the queues: the device writes nothing for a request under way. */
  #endQueues(): void {
    for (const { queue } of this.#active.values()) queue.end();
    this.#active.clear();
  }

  /** Lets the device answer the buffers of a queue after its earlier requests, also those before a reset. */
  #notify(index: number): void {
    const active = this.#active.get(index);
    if (active === undefined || (this.#status & DRIVER_OK) === 0 || !this.#config.isBusMaster) return;
    active.isNotified = true;
    if (active.isBusy) return;
    active.isBusy = true;
    this.#calls++;
    this.#lastCall = this.#lastCall.then(() => this.#process(index, active));
  }

  /** Lets the device answer the buffers of a queue, until no more are there. */
  async #process(index: number, active: ActiveQueue): Promise<void> {
    try {
      while (active.isNotified && (this.#status & NEEDS_RESET) === 0) {
        active.isNotified = false;
        await this.#options.device.process(active.queue);
        // A driver that has reset the device meanwhile does not expect it.
        if (this.#active.get(index) === active && active.queue.expectsInterrupt) this.#interrupt(QUEUE_INTERRUPT);
      }
    } catch (error) {
      if (this.#active.get(index) === active) this.#fail(error);
    } finally {
      active.isBusy = false;
      this.#calls--;
    }
  }

  /** The driver has to reset the device. Its mistakes do not end the VMM. */
  #fail(error: unknown): void {
    this.#status |= NEEDS_RESET;
    this.#interrupt(CONFIG_INTERRUPT);
    // Guest memory rejects addresses of the driver.
    const isOfDriver = error instanceof QueueError || error instanceof PeerDmaError;
    if (!isOfDriver) this.#options.failed(error);
  }

  #interrupt(kind: number): void {
    this.#interrupts |= kind;
    this.#updatePin();
  }

  /** Ends its interrupts: the pin stays as it is. */
  [Symbol.dispose](): void {
    this.#endQueues();
    this.#isClosed = true;
  }

  #updatePin(): void {
    if (!this.#isClosed) this.#options.setPin(this.#interrupts !== 0 && this.#config.hasPin);
  }
}
