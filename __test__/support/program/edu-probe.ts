/**
 * Probes an IOMMU by real DMA. An edu device reads and writes a few bytes on both sides of a page boundary.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Edu } from '../../../examples/devices/edu.ts';
import type { DeviceRegion, GuestMemory, PhysicalFunction } from '../../../ts/index.ts';

/** Registers in BAR 0, and the device's buffer: QEMU, docs/specs/edu.rst. */
const SOURCE = 0x80n;
const DESTINATION = 0x88n;
const COUNT = 0x90n;
const COMMAND = 0x98n;
const START = 1n;
const FROM_DEVICE = 2n;
const BUFFER = 0x40000n;

const PATIENCE = 10_000;

/** Bytes on each side of a boundary. */
export const SIDE = 4;
const BOTH = 2 * SIDE;

/** The bytes in the device's buffer without DMA. */
export const UNTOUCHED = 0xee;

/** The bytes that DMA has read on both sides of a boundary. */
export interface Sides {
  readonly below: Uint8Array;
  readonly above: Uint8Array;
}

export class EduProbe {
  readonly #registers: DeviceRegion;
  readonly #memory: GuestMemory;
  /** RAM of this probe alone, {@link Edu.BUFFER_SIZE} bytes. */
  readonly #stage: bigint;
  transfers = 0;

  constructor(device: PhysicalFunction, memory: GuestMemory, stage: bigint) {
    const registers = device.regions[0];
    if (registers === undefined) throw new Error(`${device.bdf} has no registers`);
    new Edu(device); // memory decode and bus mastering
    this.#registers = registers;
    this.#memory = memory;
    this.#stage = stage;
  }

  /** Reads around each of these IOVAs. After a fault the result is {@link UNTOUCHED}, or zeros. */
  async read(boundaries: readonly bigint[]): Promise<Sides[]> {
    const most = Edu.BUFFER_SIZE / BOTH;
    if (boundaries.length > most) throw new RangeError(`the buffer has room for ${most} boundaries`);
    await this.#fillBuffer(new Uint8Array(Edu.BUFFER_SIZE).fill(UNTOUCHED));
    for (const [index, boundary] of boundaries.entries()) {
      await this.#transfer(boundary - BigInt(SIDE), BUFFER + BigInt(index * BOTH), BOTH, START);
    }
    this.#memory.write(this.#stage, new Uint8Array(Edu.BUFFER_SIZE));
    await this.#transfer(BUFFER, this.#stage, Edu.BUFFER_SIZE, START | FROM_DEVICE);
    const bytes = this.#memory.read(this.#stage, Edu.BUFFER_SIZE);
    return boundaries.map((_, index) => ({
      below: bytes.slice(index * BOTH, index * BOTH + SIDE),
      above: bytes.slice(index * BOTH + SIDE, (index + 1) * BOTH),
    }));
  }

  /** Writes a byte, over and over, around each of these IOVAs. */
  async write(boundaries: readonly bigint[], byte: number): Promise<void> {
    if (boundaries.length === 0) return;
    await this.#fillBuffer(new Uint8Array(BOTH).fill(byte));
    for (const boundary of boundaries) {
      await this.#transfer(BUFFER, boundary - BigInt(SIDE), BOTH, START | FROM_DEVICE);
    }
  }

  async #fillBuffer(bytes: Uint8Array): Promise<void> {
    this.#memory.write(this.#stage, bytes);
    await this.#transfer(this.#stage, BUFFER, bytes.length, START);
  }

  async #transfer(source: bigint, destination: bigint, length: number, command: bigint): Promise<void> {
    this.transfers++;
    this.#registers.write64(SOURCE, source);
    this.#registers.write64(DESTINATION, destination);
    this.#registers.write64(COUNT, BigInt(length));
    this.#registers.write64(COMMAND, command);
    for (const deadline = Date.now() + PATIENCE; (this.#registers.read64(COMMAND) & START) !== 0n;) {
      if (Date.now() > deadline) throw new Error('the DMA engine of edu does not finish');
      await sleep(5);
    }
  }
}
