/**
 * For each bit of config space: whether a guest reads it here or at the device, whether it can change it here, and
 * whether its writes get to the device.
 */
import { CFG_SPACE_SIZE } from './registers.ts';

/** How a register of 1 to 4 bytes is emulated; what isn't mentioned is the device's. @internal */
export interface RegisterRule {
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** What it holds at power-on, in its emulated and writable bits. */
  readonly value?: number;
  /** Bits that are read here. */
  readonly emulated: number;
  /** Bits that are kept as the guest writes them, whether they are read here or are only to be known. */
  readonly writable?: number;
  /** Bits of which the device is told; those that aren't emulated where nothing is said. */
  readonly forwarded?: number;
}

/** Bytes that go to the device in one access. @internal */
export interface ForwardedWrite {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** The rules of one config space. Bytes that a guest can change here are in its first 256. @internal */
export class Emulation {
  readonly #emulated: Uint8Array;
  readonly #forwarded: Uint8Array;
  readonly #writable = new Uint8Array(CFG_SPACE_SIZE);
  /** What is emulated, as it is at power-on. */
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
      // Past the first 256 bytes nothing is writable, and this does nothing.
      this.#writable[offset + index] = writable >>> (8 * index);
    }
  }

  /** Bytes that read as 0, and that nothing changes. */
  hide(offset: number, length: number): void {
    for (let index = 0; index < length; index++) this.define({ offset: offset + index, length: 1, emulated: 0xff });
  }

  /** What can change of the emulated bytes, as it is at power-on. */
  initial(): Uint8Array {
    return this.#values.slice(0, CFG_SPACE_SIZE);
  }

  /** @param device what the device has at that offset; of the result's length */
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

  /** The state after a write; the same one where nothing changes. */
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
   * What the device is told of a write. A byte that it is told a part of goes with what the device has in the others.
   *
   * @param device what the device has at that offset
   */
  forward(offset: number, bytes: Uint8Array, device: Uint8Array): ForwardedWrite[] {
    const told = (from: number, width: number): Uint8Array =>
      bytes.slice(from, from + width).map((byte, index) => {
        const forwarded = byteOf(this.#forwarded, offset + from + index);
        return (byte & forwarded) | (byteOf(device, from + index) & ~forwarded);
      });
    const writes: ForwardedWrite[] = [];
    for (let index = 0; index < bytes.length;) {
      const width = this.#widest(offset + index, bytes.length - index);
      if (width > 0) writes.push({ offset: offset + index, bytes: told(index, width) });
      index += Math.max(width, 1);
    }
    return writes;
  }

  /** The width of the widest aligned access there that the device is to see; 0 where the first byte isn't for it. */
  #widest(offset: number, most: number): number {
    let run = 0;
    while (run < most && byteOf(this.#forwarded, offset + run) !== 0) run += 1;
    if (run === 0) return 0;
    let width = 4;
    while (width > run || offset % width !== 0) width >>= 1;
    return width;
  }
}

/** A copy. Buffers share memory of a pool, which costs a third of an array with memory of its own. @internal */
export function copyOf(bytes: Uint8Array): Uint8Array {
  return Buffer.from(bytes);
}

/** Offsets are checked before; 0 for those past the end. */
function byteOf(bytes: Uint8Array, offset: number): number {
  return bytes[offset] ?? 0;
}
