/**
 * A driver for the DMA engine of QEMU's teaching device `edu`: the smallest real device that can move bytes by DMA.
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

/** The device's own buffer, in its own address space. */
const BUFFER = 0x40000n;

/** A transfer takes a tenth of a second; one that takes this many milliseconds never ends. */
const TRANSFER_TIMEOUT = 10_000;

/** PCI config space: the Command register, and its bits for decoding memory and being a bus master. */
const PCI_COMMAND = 4n;
const MEMORY_AND_BUS_MASTER = 0x6;

/** `0x1234:0x11e8`, as config space has it in its first four bytes. */
export const EDU_ID = 0x11e81234;

/** BAR 0, by whatever way a driver reaches it. Offsets are the BAR's. */
export type EduRegisters = Pick<DeviceRegion, 'write32' | 'read64' | 'write64'>;

/** Drives a device that decodes memory and may be a bus master. */
export class EduDriver {
  /** Bytes in one transfer at most. The device has 4096, of which older versions of QEMU refuse the last. */
  static readonly BUFFER_SIZE = 2048;
  readonly #registers: EduRegisters;

  constructor(registers: EduRegisters) {
    this.#registers = registers;
  }

  /** DMA from an IOVA into the device's buffer. A fault leaves what the IOMMU lets through: zeros, or the old bytes. */
  load(iova: bigint, length: number): Promise<void> {
    return this.#transfer(iova, BUFFER, length, START);
  }

  /** DMA from the device's buffer to an IOVA. A fault writes nothing. */
  store(iova: bigint, length: number): Promise<void> {
    return this.#transfer(BUFFER, iova, length, START | FROM_DEVICE);
  }

  /** DMA from one IOVA to another, through the buffer. */
  async copy(from: bigint, to: bigint, length: number): Promise<void> {
    await this.load(from, length);
    await this.store(to, length);
  }

  /** Whether a transfer is under way. */
  get busy(): boolean {
    return (this.#registers.read64(COMMAND) & START) !== 0n;
  }

  /**
   * Has it interrupt: by a message where MSI is on, else by its pin, asserted until all causes are acknowledged.
   */
  raise(causes = 1): void {
    this.#registers.write32(RAISE, causes);
  }

  acknowledge(causes = 1): void {
    this.#registers.write32(ACKNOWLEDGE, causes);
  }

  async #transfer(source: bigint, destination: bigint, length: number, command: bigint): Promise<void> {
    if (length <= 0 || length > EduDriver.BUFFER_SIZE)
      throw new RangeError(`edu moves 1 to ${EduDriver.BUFFER_SIZE} bytes at a time`);
    await this.#idle(); // of a transfer that whoever had the device before has left behind: it takes no other meanwhile
    this.#registers.write64(SOURCE, source);
    this.#registers.write64(DESTINATION, destination);
    this.#registers.write64(COUNT, BigInt(length));
    this.#registers.write64(COMMAND, command);
    await this.#idle();
  }

  async #idle(): Promise<void> {
    for (const deadline = Date.now() + TRANSFER_TIMEOUT; this.busy;) {
      if (Date.now() > deadline) throw new Error('the DMA engine of edu does not come to an end');
      await sleep(10);
    }
  }
}

/** Drives a device through the regions of its function, as a driver in user space does. */
export class Edu extends EduDriver {
  /** Turns on memory decoding and bus mastering. */
  constructor(device: Pick<PhysicalFunction, 'bdf' | 'config' | 'regions'>) {
    const registers = device.regions[0];
    if (registers === undefined || device.config.read32(0n) !== EDU_ID)
      throw new Error(`${device.bdf} is no edu device`);
    super(registers);
    const command = device.config.read(PCI_COMMAND, 2);
    device.config.write(PCI_COMMAND, Uint8Array.of((command[0] ?? 0) | MEMORY_AND_BUS_MASTER, command[1] ?? 0));
  }
}
