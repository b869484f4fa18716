/**
 * A driver for the DMA engine of QEMU's teaching device `edu`: the simplest device that does DMA.
 * Registers: QEMU, docs/specs/edu.rst.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { DeviceRegion, PhysicalFunction } from '../../index.ts';

/** Offsets in BAR 0. */
const RAISE = 0x60n;
const ACKNOWLEDGE = 0x64n;
const SOURCE = 0x80n;
const DESTINATION = 0x88n;
const COUNT = 0x90n;
const COMMAND = 0x98n;

const START = 1n;
const FROM_DEVICE = 2n;

/** Address of the device's buffer in its own address space. */
const BUFFER = 0x40000n;

/** Timeout of a transfer in milliseconds. A transfer takes a tenth of a second. */
const TRANSFER_TIMEOUT = 10_000;

/** PCI config space: offset of the Command register. Its bits below are Memory Space Enable and Bus Master Enable. */
const PCI_COMMAND = 4n;
const MEMORY_AND_BUS_MASTER = 0x6;

/** Vendor and device ID of edu, `1234:11e8`: the first four bytes of config space. */
export const EDU_ID = 0x11e81234;

/** Access to the registers in BAR 0. Offsets are relative to the BAR. */
export type EduRegisters = Pick<DeviceRegion, 'write32' | 'read64' | 'write64'>;

/** Drives the DMA engine of a device that has memory decode and bus mastering enabled. */
export class EduDriver {
  /** Limit of the bytes in one transfer. The device has 4096; older versions of QEMU reject the last one. */
  static readonly BUFFER_SIZE = 2048;
  readonly #registers: EduRegisters;

  constructor(registers: EduRegisters) {
    this.#registers = registers;
  }

  /** Copies memory at an IOVA to the device's buffer. After a fault the buffer has zeros or its old bytes. */
  load(iova: bigint, length: number): Promise<void> {
    return this.#transfer(iova, BUFFER, length, START);
  }

  /** Copies the device's buffer to memory at an IOVA. A fault writes nothing. */
  store(iova: bigint, length: number): Promise<void> {
    return this.#transfer(BUFFER, iova, length, START | FROM_DEVICE);
  }

  /** Copies memory from one IOVA to another, through the buffer. */
  async copy(from: bigint, to: bigint, length: number): Promise<void> {
    await this.load(from, length);
    await this.store(to, length);
  }

  /** Whether a transfer is running. */
  get busy(): boolean {
    return (this.#registers.read64(COMMAND) & START) !== 0n;
  }

  /**
   * Raises an interrupt. The device sends a message if MSI is enabled, else asserts INTx until all causes are
   * acknowledged.
   */
  raise(causes = 1): void {
    this.#registers.write32(RAISE, causes);
  }

  /** Acknowledges causes of an interrupt. */
  acknowledge(causes = 1): void {
    this.#registers.write32(ACKNOWLEDGE, causes);
  }

  async #transfer(source: bigint, destination: bigint, length: number, command: bigint): Promise<void> {
    if (length <= 0 || length > EduDriver.BUFFER_SIZE)
      throw new RangeError(`edu moves 1 to ${EduDriver.BUFFER_SIZE} bytes at a time`);
    await this.#idle(); // a transfer of the previous user may still run, and the device rejects a second one
    this.#registers.write64(SOURCE, source);
    this.#registers.write64(DESTINATION, destination);
    this.#registers.write64(COUNT, BigInt(length));
    this.#registers.write64(COMMAND, command);
    await this.#idle();
  }

  async #idle(): Promise<void> {
    for (const deadline = Date.now() + TRANSFER_TIMEOUT; this.busy;) {
      if (Date.now() > deadline) throw new Error('edu: DMA failed: the transfer did not end in time');
      await sleep(10);
    }
  }
}

/** Drives a device through the regions of its function, like a driver in user space. */
export class Edu extends EduDriver {
  /** Enables memory decode and bus mastering. */
  constructor(device: Pick<PhysicalFunction, 'bdf' | 'config' | 'regions'>) {
    const registers = device.regions[0];
    if (registers === undefined || device.config.read32(0n) !== EDU_ID)
      throw new Error(`${device.bdf} is not an edu device`);
    super(registers);
    const command = device.config.read(PCI_COMMAND, 2);
    device.config.write(PCI_COMMAND, Uint8Array.of((command[0] ?? 0) | MEMORY_AND_BUS_MASTER, command[1] ?? 0));
  }
}
