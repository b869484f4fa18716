/** Bit-level rules of config space: emulated, guest-writable and forwarded bits. */
import { CFG_SPACE_SIZE } from './registers.ts';

/** The rule of a register of 1 to 4 bytes. Bits without a rule are the device's. @internal */
export interface RegisterRule {
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** Its power-on value, in the emulated and writable bits. */
  readonly value?: number;
  /** Bits that the guest reads from the emulated state. */
  readonly emulated: number;
  /** Bits that are stored as the guest writes them, whether it reads them here or at the device. */
  readonly writable?: number;
  /** Bits that are forwarded to the device. Default: those that are not emulated */
  readonly forwarded?: number;
}

/** Bytes of one access to the device. @internal */
export interface ForwardedWrite {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** The rules of one config space. Writable bits are in its first 256 bytes. @internal */
export class Emulation {
  readonly #emulated: Uint8Array;
  readonly #forwarded: Uint8Array;
  readonly #writable = new Uint8Array(CFG_SPACE_SIZE);
  /** Power-on values of the emulated bits. */
  readonly #values: Uint8Array;

  constructor(size: number) {
    this.#emulated = new Uint8Array(size);
    this.#forwarded = new Uint8Array(size).fill(0xff);
    this.#values = new Uint8Array(size);
  }

  define({ offset, length, value = 0, emulated, writable = 0, forwarded = ~emulated }: RegisterRule): void {
    for (let index = 0; index < length; index++) {
      this.#emulated[offset + index] = emulated >>> (8 * index);
      this.#forwarded[offset + index] = forwarded >>> (8 * index);
      this.#values[offset + index] = value >>> (8 * index);
      // No-op past the first 256 bytes, where nothing is writable.
      this.#writable[offset + index] = writable >>> (8 * index);
    }
  }

  /** Defines reserved bytes: they read as 0 and ignore writes. */
  defineReserved(offset: number, length: number): void {
    for (let index = 0; index < length; index++) this.define({ offset: offset + index, length: 1, emulated: 0xff });
  }

  /** Defines bytes that the guest reads, and whose writes are dropped. */
  defineReadOnly(offset: number, bytes: Uint8Array): void {
    for (const [index, value] of bytes.entries()) {
      this.define({ offset: offset + index, length: 1, value, emulated: 0xff });
    }
  }

  /** The power-on values of the first 256 bytes. */
  initial(): Uint8Array {
    return this.#values.slice(0, CFG_SPACE_SIZE);
  }

  /** @param device the device's bytes at that offset; the result has their length */
  read(state: Uint8Array, offset: number, device: Uint8Array): Uint8Array {
    const bytes = new Uint8Array(device.length);
    for (let index = 0; index < bytes.length; index++) {
      const here = offset + index;
      const emulated = byteOf(this.#emulated, here);
      const held = here < CFG_SPACE_SIZE ? byteOf(state, here) : byteOf(this.#values, here);
      bytes[index] = (byteOf(device, index) & ~emulated) | (held & emulated);
    }
    return bytes;
  }

  /** Returns the state after a write; the same object if nothing changes. */
  write(state: Uint8Array, offset: number, bytes: Uint8Array): Uint8Array {
    let next = state;
    for (let index = 0; index < bytes.length; index++) {
      const here = offset + index;
      if (here >= CFG_SPACE_SIZE) break;
      const bits = byteOf(this.#writable, here);
      const before = byteOf(state, here);
      const after = (before & ~bits) | (byteOf(bytes, index) & bits);
      if (after === before) continue;
      if (next === state) next = copyOf(state);
      next[here] = after;
    }
    return next;
  }

  /**
   * Returns the writes to forward. In a partly forwarded byte, the other bits have the device's value.
   *
   * @param device the device's bytes at that offset
   */
  forward(offset: number, bytes: Uint8Array, device: Uint8Array): ForwardedWrite[] {
    const merged = (from: number, width: number): Uint8Array =>
      bytes.slice(from, from + width).map((byte, index) => {
        const forwarded = byteOf(this.#forwarded, offset + from + index);
        return (byte & forwarded) | (byteOf(device, from + index) & ~forwarded);
      });
    const writes: ForwardedWrite[] = [];
    for (let index = 0; index < bytes.length;) {
      const width = this.#widest(offset + index, bytes.length - index);
      if (width > 0) writes.push({ offset: offset + index, bytes: merged(index, width) });
      index += Math.max(width, 1);
    }
    return writes;
  }

  /** Returns the width of the widest aligned access to forward; 0 if the first byte is not forwarded. */
  #widest(offset: number, most: number): number {
    let run = 0;
    while (run < most && byteOf(this.#forwarded, offset + run) !== 0) run += 1;
    if (run === 0) return 0;
    let width = 4;
    while (width > run || offset % width !== 0) width >>= 1;
    return width;
  }
}

/** Copies bytes. A pooled Buffer costs a third of an array with its own memory. @internal */
export function copyOf(bytes: Uint8Array): Uint8Array {
  return Buffer.from(bytes);
}

/** Returns a byte; 0 past the end. Callers check offsets. */
function byteOf(bytes: Uint8Array, offset: number): number {
  return bytes[offset] ?? 0;
}
