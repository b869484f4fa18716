/**
 * An independent model of config space, with 32-bit registers instead of the product's masks per byte.
 *
 * The properties of each device are written by hand, not derived from its bytes.
 */

/** A memory BAR or the ROM, by its first register. */
export interface ModelBar {
  readonly index: number;
  readonly register: number;
  readonly bits: 32 | 64;
  readonly prefetchable?: true;
  readonly length: bigint;
  readonly pinned?: bigint;
}

/** The properties of a device. */
export interface ModelShape {
  readonly bars: readonly ModelBar[];
  /** Power management: its offset, and the supported states besides D0 and D3hot. */
  readonly power?: { readonly offset: number; readonly states: readonly number[]; readonly header: number };
  readonly firstCapability: number;
  readonly pin: number;
  /** Registers that are the device's, unchanged. */
  readonly plain: readonly number[];
}

const ONES = 0xffffffffn;

export class Model {
  readonly #shape: ModelShape;
  /** The guest's last values of the registers of BARs and ROM. */
  readonly #written = new Map<number, bigint>();
  /** The device's values, by register. */
  readonly device = new Map<number, bigint>();
  #memory = false;
  #power = 0;
  #line = 0n;

  constructor(shape: ModelShape, bytes: Uint8Array) {
    this.#shape = shape;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    for (const register of this.registers) this.device.set(register, BigInt(view.getUint32(register, true)));
  }

  /** The visible state. */
  get registers(): number[] {
    const { power, plain } = this.#shape;
    const header = Array.from({ length: 16 }, (_, index) => 4 * index);
    return [...header, ...(power === undefined ? [] : [power.offset, power.offset + 4]), ...plain];
  }

  read(offset: number, size: number): number {
    const register = offset - (offset % 4);
    const lane = BigInt(8 * (offset - register));
    return Number(BigInt.asUintN(8 * size, this.#read(register) >> lane));
  }

  write(offset: number, size: number, value: number): void {
    const register = offset - (offset % 4);
    const lane = BigInt(8 * (offset - register));
    const mask = ((1n << BigInt(8 * size)) - 1n) << lane;
    this.#write(register, (BigInt(value) << lane) & mask, mask);
  }

  /** Updates the device's Command and power state. */
  setDecodeRegisters(command: number, power: number): void {
    this.device.set(0x04, ((this.device.get(0x04) ?? 0n) & 0xffff0000n) | BigInt(command));
    this.#memory = command !== 0xffff && (command & 2) !== 0;
    const register = this.#shape.power && this.#shape.power.offset + 4;
    if (register === undefined) return;
    this.device.set(register, ((this.device.get(register) ?? 0n) & ~3n) | BigInt(power));
    this.#power = power;
  }

  decoded(): Record<number, bigint> {
    const found: Record<number, bigint> = {};
    if (!this.#memory || this.#power !== 0) return found;
    for (const { index, register, bits, length, pinned } of this.#shape.bars) {
      const low = this.#written.get(register) ?? 0n;
      const high = bits === 64 ? (this.#written.get(register + 4) ?? 0n) : 0n;
      const address = pinned ?? (((high << 32n) + low) / length) * length;
      const last = pinned === undefined && address + length >= (bits === 64 ? 1n << 64n : 1n << 32n);
      // All ones in a half request the size, if that half has address bits.
      const half = (length <= ONES && low >> 4n === ONES >> 4n) || high === ONES;
      const asked = bits === 64 && pinned === undefined && half;
      const enabled = register !== 0x30 || low % 2n === 1n;
      if (address > 0n && !last && !asked && enabled) found[index] = address;
    }
    return found;
  }

  #read(register: number): bigint {
    const device = this.device.get(register) ?? 0n;
    const { power, firstCapability, pin } = this.#shape;
    if (register === 0x04) {
      const list = firstCapability === 0 ? 0n : 1n << 20n;
      return (device & ~(3n | (1n << 20n))) | (this.#memory ? 2n : 0n) | list;
    }
    if (register === 0x0c) return device & 0xffffn;
    if ((register >= 0x10 && register < 0x28) || register === 0x30) return this.#readBar(register);
    if (register === 0x34) return (device & ~0xffn) | BigInt(firstCapability);
    if (register === 0x3c) return (device & 0xffff0000n) | BigInt(pin << 8) | this.#line;
    if (register === power?.offset) return (device & 0xffff0000n) | BigInt(power.header);
    return device;
  }

  #readBar(register: number): bigint {
    for (const bar of this.#shape.bars) {
      const upper = register === bar.register + 4 && bar.bits === 64;
      if (register !== bar.register && !upper) continue;
      const written = this.#written.get(register) ?? 0n;
      const type = upper ? 0n : (bar.bits === 64 ? 4n : 0n) + (bar.prefetchable === true ? 8n : 0n);
      const size = upper ? bar.length >> 32n : bar.length;
      const rounded = size <= 1n ? written : size > ONES ? 0n : written - (written % size);
      if (bar.pinned === undefined) return rounded + type + (register === 0x30 ? written % 2n : 0n);
      const asked = upper ? written === ONES : written >> 4n === ONES >> 4n;
      const place = upper ? bar.pinned >> 32n : bar.pinned & ONES;
      return (asked ? rounded : place) + type;
    }
    return 0n;
  }

  #write(register: number, value: bigint, mask: bigint): void {
    const { power, bars } = this.#shape;
    const tell = (bits: bigint): void => {
      const before = this.device.get(register) ?? 0n;
      this.device.set(register, (before & ~(mask & bits)) | (value & mask & bits));
    };
    const all = ONES;
    if (register === 0x04) {
      if ((mask & 2n) !== 0n) this.#memory = (value & 2n) !== 0n;
      return tell(all - 1n - (1n << 20n));
    }
    if (register === 0x0c) return tell(0xffffn);
    if ((register >= 0x10 && register < 0x28) || register === 0x30) {
      if (!bars.some((bar) => register === bar.register || (bar.bits === 64 && register === bar.register + 4))) return;
      this.#written.set(register, ((this.#written.get(register) ?? 0n) & ~mask) | value);
      return;
    }
    if (register === 0x34) return tell(0xffffff00n);
    if (register === 0x3c) {
      if ((mask & 0xffn) !== 0n) this.#line = value & 0xffn;
      return tell(0xffff0000n);
    }
    if (register === power?.offset) return tell(0xffff0000n);
    if (power !== undefined && register === power.offset + 4 && (mask & 0xffn) !== 0n) {
      const asked = Number(value & 3n);
      const has = asked === 0 || asked === 3 || power.states.includes(asked);
      if (asked === 0 || (has && asked > this.#power)) this.#power = asked;
    }
    return tell(all);
  }
}
