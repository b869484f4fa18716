/**
 * The firmware of a guest, in miniature: sizes, places and enables a PCI function.
 *
 * All of it is done through config space. PCI Local Bus Specification 3.0, 6.2.5.1 (sizing) and 6.7 (capabilities); PCI
 * Bus Power Management Interface Specification 1.2, 3.2.4.
 */

/** A function as the guest accesses it: an assigned device, or one that a scan of the bus has found. */
export interface GuestFunction {
  configRead(offset: number, size: number): number;
  configWrite(offset: number, size: number, value: number): Promise<void>;
}

/** The contents of a BAR register. */
export interface ProbedBar {
  /** From 0 to 5. */
  readonly index: number;
  /** Length in bytes. */
  readonly length: bigint;
  /** Whether its register has 64 bits, and takes the place of two. */
  readonly is64Bit: boolean;
  readonly prefetchable: boolean;
}

/** Offsets in config space. */
const COMMAND = 0x04;
const FIRST_BAR = 0x10;
const FIRST_CAPABILITY = 0x34;

/** Bits of Command. */
const MEMORY = 0x2;
const BUS_MASTER = 0x4;

/** Bits of a BAR's register. */
const IS_64_BIT = 0x4;
const PREFETCHABLE = 0x8;
const FLAGS = 0xf;

const BARS = 6;
const ALL_ONES = 0xffff_ffff;

/** The power management capability, and the offset of its control register. */
const POWER_MANAGEMENT = 0x01;
const POWER_CONTROL = 4;

/** Acts as the firmware for one function. */
export class Firmware {
  readonly bars: readonly ProbedBar[];
  readonly #function: GuestFunction;

  private constructor(func: GuestFunction, bars: readonly ProbedBar[]) {
    this.#function = func;
    this.bars = bars;
  }

  /** Finds the BARs. Decoding has to be off, as after power-on: a BAR that is sized has no address. */
  static async probe(func: GuestFunction): Promise<Firmware> {
    const bars: ProbedBar[] = [];
    for (let index = 0; index < BARS; index++) {
      const bar = await probeBar(func, index);
      if (bar === undefined) continue;
      bars.push(bar);
      if (bar.is64Bit) index++;
    }
    return new Firmware(func, bars);
  }

  /** Places a BAR at an address, a multiple of its length. */
  async place(index: number, gpa: bigint): Promise<void> {
    const bar = this.bars.find((one) => one.index === index);
    if (bar === undefined) throw new Error(`the function has no BAR ${index}`);
    await this.#function.configWrite(barRegister(index), 4, Number(gpa & 0xffff_ffffn));
    if (bar.is64Bit) await this.#function.configWrite(barRegister(index + 1), 4, Number(gpa >> 32n));
  }

  /** Places every BAR, from an address on. Returns the first address behind them. */
  async placeAll(from: bigint): Promise<bigint> {
    let next = from;
    for (const { index, length } of this.bars) {
      const gpa = ((next + length - 1n) / length) * length;
      await this.place(index, gpa);
      next = gpa + length;
    }
    return next;
  }

  /** The address at which a BAR is placed. */
  addressOf(index: number): bigint {
    const low = this.#function.configRead(barRegister(index), 4);
    const high = (low & IS_64_BIT) === 0 ? 0 : this.#function.configRead(barRegister(index + 1), 4);
    return (BigInt(high) << 32n) | BigInt((low & ~FLAGS) >>> 0);
  }

  /** Turns memory decode and bus mastering on. */
  enable(): Promise<void> {
    return this.#setCommand(MEMORY | BUS_MASTER, MEMORY | BUS_MASTER);
  }

  /** Turns memory decode off. */
  disable(): Promise<void> {
    return this.#setCommand(MEMORY, 0);
  }

  /** Sets the power state: 0 is awake, 3 is D3hot. */
  async setPowerState(state: 0 | 3): Promise<void> {
    const control = this.capability(POWER_MANAGEMENT) + POWER_CONTROL;
    await this.#function.configWrite(control, 2, (this.#function.configRead(control, 2) & ~0x3) | state);
  }

  /** The offset of a capability in config space, by its number. */
  capability(id: number): number {
    for (let at = this.#function.configRead(FIRST_CAPABILITY, 1); at !== 0; at = this.#function.configRead(at + 1, 1)) {
      if (this.#function.configRead(at, 1) === id) return at;
    }
    throw new Error(`the function has no capability ${id}`);
  }

  async #setCommand(mask: number, bits: number): Promise<void> {
    const command = this.#function.configRead(COMMAND, 2);
    await this.#function.configWrite(COMMAND, 2, (command & ~mask) | bits);
  }
}

/** The offset of the register of a BAR in config space. */
export function barRegister(index: number): number {
  return FIRST_BAR + 4 * index;
}

/** All ones read back as ones in writable address bits, and as zeros below. The lowest one is the size. */
async function probeBar(func: GuestFunction, index: number): Promise<ProbedBar | undefined> {
  const low = await ones(func, barRegister(index));
  if (low === 0) return undefined;
  const is64Bit = (low & IS_64_BIT) !== 0;
  const high = is64Bit ? await ones(func, barRegister(index + 1)) : ALL_ONES;
  const mask = (BigInt(high) << 32n) | BigInt((low & ~FLAGS) >>> 0);
  return { index, length: mask & -mask, is64Bit, prefetchable: (low & PREFETCHABLE) !== 0 };
}

/** Writes all ones to a register, reads it, and restores its value. */
async function ones(func: GuestFunction, register: number): Promise<number> {
  const value = func.configRead(register, 4);
  await func.configWrite(register, 4, ALL_ONES);
  const read = func.configRead(register, 4);
  await func.configWrite(register, 4, value);
  return read;
}
