/** The MSI capability of the guest, all emulated: VFIO programs the device with the host's messages. */
import type { Capability } from './capabilities.ts';
import { type ConfigImage, u16, u32 } from './config-image.ts';
import type { Emulation } from './emulation.ts';
import type { InterruptControl } from './interrupt-control.ts';
import {
  CAP_SIZEOF,
  MSI_ADDRESS_HI,
  MSI_ADDRESS_LO,
  MSI_FLAGS,
  MSI_FLAGS_64BIT,
  MSI_FLAGS_ENABLE,
  MSI_FLAGS_MASKBIT,
  MSI_FLAGS_QMASK,
  MSI_FLAGS_QMASK_SHIFT,
  MSI_FLAGS_QSIZE,
  MSI_FLAGS_QSIZE_SHIFT,
  MSI_MOST_MESSAGES_LOG2,
} from './registers.ts';

/** Returns the length of a capability with these flags. It ends with the data or the pending bits. @internal */
export function msiLength(flags: number): number {
  const data = dataOffset(flags);
  return (flags & MSI_FLAGS_MASKBIT) === 0 ? data + 2 : data + 12;
}

/** Returns the offset of the 2 data bytes. Mask bits and pending bits begin at the next dword. */
function dataOffset(flags: number): number {
  return (flags & MSI_FLAGS_64BIT) === 0 ? MSI_ADDRESS_HI : MSI_ADDRESS_HI + 4;
}

/** @internal */
export class MsiCapability {
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  readonly #flags: number;
  /** How many vectors the guest has, as a power of two. */
  readonly #most: number;
  readonly #data: number;
  /** Offset of the mask bits, if they exist; the pending bits follow. */
  readonly #masks: number | undefined;

  /** @param vectors how many vectors the host supports, 1 or more */
  constructor(image: ConfigImage, { offset }: Capability, vectors: number) {
    this.offset = offset;
    this.#flags = image.u16(offset + MSI_FLAGS);
    const capable = (this.#flags & MSI_FLAGS_QMASK) >> MSI_FLAGS_QMASK_SHIFT;
    this.#most = Math.min(capable, MSI_MOST_MESSAGES_LOG2, Math.floor(Math.log2(vectors)));
    this.#data = offset + dataOffset(this.#flags);
    this.#masks = (this.#flags & MSI_FLAGS_MASKBIT) === 0 ? undefined : this.#data + 4;
    this.length = msiLength(this.#flags);
  }

  define(emulation: Emulation): void {
    const { offset } = this;
    emulation.defineReserved(offset + CAP_SIZEOF, this.length - CAP_SIZEOF);
    emulation.define({
      offset: offset + MSI_FLAGS,
      length: 2,
      value: (this.#flags & (MSI_FLAGS_64BIT | MSI_FLAGS_MASKBIT)) | (this.#most << MSI_FLAGS_QMASK_SHIFT),
      emulated: 0xffff,
      writable: MSI_FLAGS_ENABLE | MSI_FLAGS_QSIZE,
    });
    const register = (at: number, length: number, writable: number): void =>
      emulation.define({ offset: at, length, emulated: 0xffffffff, writable });
    register(offset + MSI_ADDRESS_LO, 4, 0xfffffffc);
    if (this.#wide) register(offset + MSI_ADDRESS_HI, 4, 0xffffffff);
    register(this.#data, 2, 0xffff);
    if (this.#masks !== undefined) register(this.#masks, 4, this.#vectorBits);
  }

  /** Inserts the pending bits into the bytes read at that offset. */
  patchPending(pending: number, offset: number, read: Uint8Array): void {
    if (this.#masks === undefined) return;
    const first = this.#masks + 4 - offset;
    for (const index of read.keys()) {
      const byte = index - first;
      if (byte >= 0 && byte < 4) read[index] = (pending & this.#vectorBits) >>> (8 * byte);
    }
  }

  control(state: Uint8Array): NonNullable<InterruptControl['msi']> {
    const flags = u16(state, this.offset + MSI_FLAGS);
    const low = BigInt(u32(state, this.offset + MSI_ADDRESS_LO));
    const high = this.#wide ? BigInt(u32(state, this.offset + MSI_ADDRESS_HI)) : 0n;
    return {
      enabled: (flags & MSI_FLAGS_ENABLE) !== 0,
      // A guest that enables more than the maximum gets the maximum.
      vectors: 2 ** Math.min((flags & MSI_FLAGS_QSIZE) >> MSI_FLAGS_QSIZE_SHIFT, this.#most),
      address: (high << 32n) | low,
      data: u16(state, this.#data),
      masks: this.#masks === undefined ? 0 : u32(state, this.#masks),
    };
  }

  get #wide(): boolean {
    return (this.#flags & MSI_FLAGS_64BIT) !== 0;
  }

  /** One bit for each vector. */
  get #vectorBits(): number {
    return 2 ** (2 ** this.#most) - 1;
  }
}
