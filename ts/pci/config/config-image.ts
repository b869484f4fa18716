/**
 * The bytes of a device's config space as they were when it was opened: what everything else here is made from.
 */
import { requireBytes } from '../../arguments.ts';
import { PeerDmaError } from '../../errors.ts';
import { CFG_SPACE_EXP_SIZE, CFG_SPACE_SIZE } from './registers.ts';

/** Config space as it was, little-endian, and what to say where it makes no sense. @internal */
export class ConfigImage {
  /** PCI address, for messages. */
  readonly device: string;
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  /** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for what is neither 256 nor 4096 bytes */
  constructor(device: string, bytes: Uint8Array) {
    const { length } = requireBytes(bytes);
    if (length !== CFG_SPACE_SIZE && length !== CFG_SPACE_EXP_SIZE) {
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `config space of ${device} has ${CFG_SPACE_SIZE} or ${CFG_SPACE_EXP_SIZE} bytes, not ${length}`,
        { device },
      );
    }
    this.device = device;
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, length);
  }

  get size(): number {
    return this.bytes.length;
  }

  u8(offset: number): number {
    return this.#view.getUint8(offset);
  }

  u16(offset: number): number {
    return this.#view.getUint16(offset, true);
  }

  u32(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  /** The error for something that no working device has there. */
  bad(offset: number, problem: string): PeerDmaError {
    return new PeerDmaError(
      'ERR_BAD_CONFIG_SPACE',
      `config space of ${this.device} makes no sense at ${at(offset)}: ${problem}. The device is broken or does not answer: try to reset it; lspci -xxxx shows what it has`,
      { device: this.device },
    );
  }
}

/** An offset as `lspci` prints it. @internal */
export function at(offset: number): string {
  return `0x${offset.toString(16)}`;
}

/** 32 bits of bytes that somebody else has, little-endian. @internal */
export function u32(bytes: Uint8Array, offset: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(offset, true);
}

/** 16 bits of them. @internal */
export function u16(bytes: Uint8Array, offset: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint16(offset, true);
}
