/**
 * An edu in the guest: does DMA where a test asks it to, and says whose memory the bytes arrived in.
 */
import { EduDriver } from '../../../../examples/devices/edu.ts';
import { GuestBar } from '../../../../examples/guest/bar.ts';
import type { GuestMemory } from '../../../../ts/index.ts';
import { SINK, SOURCE, pattern } from '../../support/rig.ts';
import { type Assigned, decoding, physicalBar } from './guest.ts';

const BYTES = EduDriver.BUFFER_SIZE;
/** RAM and parts of BARs that an engine has to itself, so that several can be at work at once. */
const SHARE = 0x1_0000n;

let engines = 0;

/** A BAR whose bytes show what arrived. */
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
  /** Its buffer has the bytes that it strikes with. */
  #loaded = false;

  /** The device is switched on. */
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

  /** Where it strikes in a BAR at that address. */
  target(gpa: bigint): bigint {
    return gpa + this.#share;
  }

  /** Bytes of RAM go to an address. */
  async send(bytes: Uint8Array, gpa: bigint): Promise<void> {
    this.#loaded = false;
    this.#memory.write(SOURCE + this.#share, bytes);
    await this.driver.copy(SOURCE + this.#share, gpa, bytes.length);
  }

  /** Bytes come from an address to RAM. */
  async fetch(gpa: bigint, length: number): Promise<Uint8Array> {
    this.#loaded = false;
    this.#memory.write(SINK + this.#share, new Uint8Array(length));
    await this.driver.copy(gpa, SINK + this.#share, length);
    return this.#memory.read(SINK + this.#share, length);
  }

  /**
   * Writes to where a BAR would be if it was at that address, and says whether the bytes arrived in the BAR. It decodes
   * meanwhile even if the guest has it off: an IOMMU mapping that was left behind would show.
   */
  async reaches(peer: Assigned, gpa: bigint, bar = 2): Promise<boolean> {
    const [arrived] = await this.whoGets([{ peer, bar }], gpa);
    return arrived !== undefined;
  }

  /** As {@link Engine.reaches}: those BARs, of several, in which the bytes arrived. */
  async whoGets(watched: readonly Watched[], gpa: bigint): Promise<string[]> {
    const [first, ...others] = watched;
    if (first === undefined) {
      await this.strike(gpa);
      return [];
    }
    return decoding(first.peer, async () => {
      const region = physicalBar(first.peer, first.bar);
      region.write(this.#share, new Uint8Array(BYTES));
      const arrived = await this.whoGets(others, gpa);
      return this.#hasArrived(region.read(this.#share, BYTES)) ? [first.peer.bdf, ...arrived] : arrived;
    });
  }

  /** Writes to an address. */
  async strike(gpa: bigint): Promise<void> {
    await this.load();
    await this.driver.store(this.target(gpa), BYTES);
  }

  /** Whether a transfer has not come to its end. */
  get busy(): boolean {
    return this.driver.busy;
  }

  /** Gets the bytes to strike with from RAM, if it has not got them. */
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
