/**
 * MSI-X set-up of a guest's operating system.
 *
 * It writes messages into the table in a BAR, and enables them in config space. PCI Local Bus Specification 3.0, 6.8.2.
 */
import { type GuestMmio, GuestBar } from '../../guest/bar.ts';
import type { Firmware, GuestFunction } from '../../guest/firmware.ts';

const MSIX = 0x11;

/** Offsets in the capability. */
const CONTROL = 2;
const TABLE = 4;
const PENDING = 8;

/** Bits of the control register. */
const ENABLE = 0x8000;
const LAST_VECTOR = 0x7ff;

/** The bits of a table or pending-bits register with the number of the BAR. The rest is the offset in it. */
const BAR = 0x7;

/** Offsets in an entry of the table, and its length. */
const ADDRESS = 0n;
const DATA = 8n;
const VECTOR_CONTROL = 12n;
const ENTRY = 16n;

/** The message address of x86 and the first vector number, as an operating system chooses them. */
const MESSAGE_ADDRESS = 0xfee0_0000n;
const FIRST_INTERRUPT = 0x40;

/** The messages of a function whose BARs are placed. */
export class Msix {
  /** The number of vectors. */
  readonly vectors: number;
  readonly #function: GuestFunction;
  readonly #capability: number;
  readonly #table: GuestBar;
  readonly #pending: GuestBar;

  constructor(func: GuestFunction & GuestMmio, firmware: Firmware) {
    this.#function = func;
    this.#capability = firmware.capability(MSIX);
    this.vectors = (func.configRead(this.#capability + CONTROL, 2) & LAST_VECTOR) + 1;
    const structure = (register: number): GuestBar => {
      const place = func.configRead(this.#capability + register, 4);
      return new GuestBar(func, firmware.addressOf(place & BAR) + BigInt((place & ~BAR) >>> 0));
    };
    this.#table = structure(TABLE);
    this.#pending = structure(PENDING);
  }

  /** Enables messages of the first vectors. The others stay masked. */
  async enable(vectors: number): Promise<void> {
    for (let vector = 0; vector < vectors; vector++) {
      const entry = BigInt(vector) * ENTRY;
      this.#table.write64(entry + ADDRESS, MESSAGE_ADDRESS);
      this.#table.write32(entry + DATA, FIRST_INTERRUPT + vector);
      this.mask(vector, false);
    }
    await this.#setEnable(ENABLE);
  }

  /** Masks or unmasks a vector. */
  mask(vector: number, masked: boolean): void {
    this.#table.write32(BigInt(vector) * ENTRY + VECTOR_CONTROL, masked ? 1 : 0);
  }

  /** Whether a masked vector has a pending message. */
  pending(vector: number): boolean {
    return ((this.#pending.read32(BigInt(vector >> 5) * 4n) >>> (vector & 31)) & 1) !== 0;
  }

  async disable(): Promise<void> {
    await this.#setEnable(0);
  }

  async #setEnable(bit: number): Promise<void> {
    const register = this.#capability + CONTROL;
    await this.#function.configWrite(register, 2, (this.#function.configRead(register, 2) & ~ENABLE) | bit);
  }
}
