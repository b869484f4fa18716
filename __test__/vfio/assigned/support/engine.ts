/**
 * An edu in the guest that does DMA on request, and reports the memory in which the bytes arrived.
 */
import { EduDriver } from '../../../../examples/devices/edu.ts';
import { GuestBar } from '../../../../examples/guest/bar.ts';
import type { GuestMemory } from '../../../../ts/index.ts';
import { SINK, SOURCE, pattern } from '../../support/rig.ts';
import { type Assigned, decoding, physicalBar } from './guest.ts';

const BYTES = EduDriver.BUFFER_SIZE;
/** RAM and parts of BARs that belong to one engine, so that several can work at once. */
const SHARE = 0x1_0000n;

let engines = 0;

/** A BAR in whose memory arriving bytes are visible. */
export interface Watched {
  readonly peer: Assigned;
  readonly bar: number;
}

export class Engine {
  readonly assigned: Assigned;
  readonly driver: EduDriver;
  /** Guest address of its registers. */
  readonly registers: bigint;
  readonly #memory: GuestMemory;
  readonly #share: bigint;
  readonly #bytes: Uint8Array;
  /** Its buffer has the bytes that it sends. */
  #loaded = false;

  /** Enables the device. */
  constructor(memory: GuestMemory, assigned: Assigned, registers: bigint) {
    const number = engines++;
    this.assigned = assigned;
    this.registers = registers;
    this.driver = new EduDriver(new GuestBar(assigned.device, registers));
    this.#memory = memory;
    this.#share = BigInt(number % 8) * SHARE;
    this.#bytes = pattern(200 + number);
  }

  /** The same device, after its registers moved. */
  at(registers: bigint): Engine {
    return new Engine(this.#memory, this.assigned, registers);
  }

  /** The address to which it sends bytes for a BAR at `address`. */
  target(gpa: bigint): bigint {
    return gpa + this.#share;
  }

  /** Sends bytes of RAM to an address. */
  async send(bytes: Uint8Array, gpa: bigint): Promise<void> {
    this.#loaded = false;
    this.#memory.write(SOURCE + this.#share, bytes);
    await this.driver.copy(SOURCE + this.#share, gpa, bytes.length);
  }

  /** Fetches bytes from an address to RAM. */
  async fetch(gpa: bigint, length: number): Promise<Uint8Array> {
    this.#loaded = false;
    this.#memory.write(SINK + this.#share, new Uint8Array(length));
    await this.driver.copy(gpa, SINK + this.#share, length);
    return this.#memory.read(SINK + this.#share, length);
  }

  /**
   * Writes to the address that a BAR would have at `address`. Returns whether the bytes arrived in the BAR. The BAR
   * decodes meanwhile even if the guest has decode off: an IOMMU mapping that was left behind would show.
   */
  async reaches(peer: Assigned, gpa: bigint, bar = 2): Promise<boolean> {
    const [arrived] = await this.receiversAmong([{ peer, bar }], gpa);
    return arrived !== undefined;
  }

  /** As {@link Engine.reaches}: those of several BARs in which the bytes arrived. */
  async receiversAmong(watched: readonly Watched[], gpa: bigint): Promise<string[]> {
    const [first, ...others] = watched;
    if (first === undefined) {
      await this.strike(gpa);
      return [];
    }
    return decoding(first.peer, async () => {
      const region = physicalBar(first.peer, first.bar);
      region.write(this.#share, new Uint8Array(BYTES));
      const arrived = await this.receiversAmong(others, gpa);
      return this.#hasArrived(region.read(this.#share, BYTES)) ? [first.peer.bdf, ...arrived] : arrived;
    });
  }

  /** Writes to an address. */
  async strike(gpa: bigint): Promise<void> {
    await this.load();
    await this.driver.store(this.target(gpa), BYTES);
  }

  /** Whether a transfer is in progress. */
  get busy(): boolean {
    return this.driver.busy;
  }

  /** Fetches the bytes to send from RAM, unless it has them. */
  async load(): Promise<void> {
    if (this.#loaded) return;
    this.#memory.write(SOURCE + this.#share, this.#bytes);
    await this.driver.load(SOURCE + this.#share, BYTES);
    this.#loaded = true;
  }

  /** All of it or nothing. */
  #hasArrived(found: Uint8Array): boolean {
    if (Buffer.compare(found, this.#bytes) === 0) return true;
    if (found.every((byte) => byte === 0)) return false;
    throw new Error(`a part of the bytes arrived in the BAR: ${Buffer.from(found).toString('hex').slice(0, 64)}…`);
  }
}
