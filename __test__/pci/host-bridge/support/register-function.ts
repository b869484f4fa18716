/** A function written in TypeScript: 256 bytes of config space, and one BAR of 32 bits with registers. */
import { AddressRange, type GuestPciFunction } from '../../../../ts/index.ts';

export class RegisterFunction implements GuestPciFunction {
  readonly config: Uint8Array = new Uint8Array(256);
  readonly registers: Uint8Array;
  /** Accesses in order. */
  readonly log: string[] = [];
  /** How often the addresses of its BAR were read. */
  looks = 0;
  /** Awaited by config writes before they take effect. */
  delay: Promise<void> | undefined;
  /** Thrown by config writes that wait, after they took effect. */
  failAfterWrite: Error | undefined;
  /** Thrown by reads of config space. */
  failure: Error | undefined;

  /** @param length bytes of its BAR, a power of two */
  constructor(length = 0x1000, id = 0x1111) {
    this.registers = new Uint8Array(length);
    this.#view.setUint16(0, 0x1234, true);
    this.#view.setUint16(2, id, true);
  }

  get decodedBars(): readonly AddressRange[] {
    this.looks++;
    const start = BigInt(this.#view.getUint32(0x10, true));
    const enabled = (this.#view.getUint16(4, true) & 2) !== 0 && start !== 0n;
    return enabled ? [AddressRange.of(start, BigInt(this.registers.length))] : [];
  }

  configRead(offset: number, size: number): number {
    this.log.push(`read ${size} at ${offset}`);
    if (this.failure !== undefined) throw this.failure;
    if (offset >= 256) return 2 ** (8 * size) - 1;
    return this.config.subarray(offset, offset + size).reduceRight((value, byte) => value * 256 + byte, 0);
  }

  configWrite(offset: number, size: number, value: number): void | Promise<void> {
    this.log.push(`write ${size} at ${offset}`);
    return this.delay === undefined ? this.#set(offset, size, value) : this.#setLate(this.delay, offset, size, value);
  }

  mmioRead(gpa: bigint, length: number): Uint8Array {
    const offset = this.#offset(gpa, length);
    return this.registers.slice(offset, offset + length);
  }

  mmioWrite(gpa: bigint, bytes: Uint8Array): void {
    this.registers.set(bytes, this.#offset(gpa, bytes.length));
  }

  async #setLate(delay: Promise<void>, offset: number, size: number, value: number): Promise<void> {
    await delay;
    this.#set(offset, size, value);
    if (this.failAfterWrite !== undefined) throw this.failAfterWrite;
  }

  /** Only Command and BAR 0 are writable. */
  #set(offset: number, size: number, value: number): void {
    for (let index = 0; index < size; index++) {
      const at = offset + index;
      if (at === 4 || (at >= 0x10 && at < 0x14)) this.config[at] = Math.floor(value / 256 ** index);
    }
    const mask = -this.registers.length;
    this.#view.setUint32(0x10, (this.#view.getUint32(0x10, true) & mask) >>> 0, true);
  }

  #offset(gpa: bigint, length: number): number {
    const [bar] = this.decodedBars;
    if (bar?.contains(AddressRange.of(gpa, BigInt(length))) === true) return Number(gpa - bar.start);
    throw new Error(`${length} bytes at 0x${gpa.toString(16)} are not in the BAR`);
  }

  get #view(): DataView {
    return new DataView(this.config.buffer);
  }
}
