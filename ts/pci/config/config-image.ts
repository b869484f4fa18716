/**
 * The bytes of a device's config space as they were when it was opened: what everything else here is made from.
 */
import { requireBytes } from '../../arguments.ts';
import { PeerDmaError } from '../../errors.ts';
import { CFG_SPACE_EXP_SIZE, STD_HEADER_SIZEOF } from './registers.ts';

/** Config space as it was, little-endian, and what to say where it makes no sense. @internal */
export class ConfigImage {
  /** PCI address, for messages. */
  readonly device: string;
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  /** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a length that {@link isConfigLength} rejects */
  constructor(device: string, bytes: Uint8Array) {
    const { length } = requireBytes(bytes);
    if (!isConfigLength(length)) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `config space of ${device} has ${CONFIG_LENGTHS}, not ${length}`, {
        device,
      });
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
  bad(
    offset: number,
    problem: string,
    remedy = 'The device is broken or does not answer: try to reset it',
  ): PeerDmaError {
    const text = `config space of ${this.device} makes no sense at ${at(offset)}: ${problem}. ${remedy}`;
    return new PeerDmaError('ERR_BAD_CONFIG_SPACE', `${text}; lspci -xxxx shows what it has`, { device: this.device });
  }
}

/** What {@link isConfigLength} accepts, for messages. @internal */
export const CONFIG_LENGTHS = `${STD_HEADER_SIZEOF} to ${CFG_SPACE_EXP_SIZE} bytes, a multiple of 4`;

/**
 * Whether config space can have that many bytes: 256 or 4096, or fewer where the host shortens it. Linux gives 64 of
 * them to a plain user (`pci_read_config`), and 160 or 1,536 where a chip can't bear accesses beyond (`quirk_citrine`,
 * `quirk_nfp6000`).
 *
 * @internal
 */
export function isConfigLength(length: number): boolean {
  return length >= STD_HEADER_SIZEOF && length <= CFG_SPACE_EXP_SIZE && length % 4 === 0;
}

/** An offset as `lspci` prints it. @internal */
export function at(offset: number): string {
  return `0x${offset.toString(16)}`;
}

/** 32 bits of bytes that somebody else has, little-endian. @internal */
export function u32(bytes: Uint8Array, offset: number): number {
  return (u16(bytes, offset) | (u16(bytes, offset + 2) << 16)) >>> 0;
}

/** 16 bits of them. @internal */
export function u16(bytes: Uint8Array, offset: number): number {
  return (bytes[offset] ?? 0) | ((bytes[offset + 1] ?? 0) << 8);
}
