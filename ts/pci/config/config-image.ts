/** A snapshot of a device's config space, taken when the device was opened. */
import { requireBytes } from '../../arguments.ts';
import { PeerDmaError } from '../../errors.ts';
import { CFG_SPACE_EXP_SIZE, STD_HEADER_SIZEOF } from './registers.ts';

/** A little-endian snapshot of config space, with errors for invalid contents. @internal */
export class ConfigImage {
  /** PCI address, for messages. */
  readonly bdf: string;
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  /** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a length that {@link isConfigLength} rejects */
  constructor(bdf: string, bytes: Uint8Array) {
    const { length } = requireBytes(bytes);
    if (!isConfigLength(length)) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `config space of ${bdf} has ${CONFIG_LENGTHS}, not ${length}`, {
        bdf,
      });
    }
    this.bdf = bdf;
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

  /** Returns the error for contents that no working device has. */
  bad(offset: number, problem: string, remedy = 'The device is broken or does not respond. Reset it'): PeerDmaError {
    const text = `config space of ${this.bdf} is invalid at ${at(offset)}: ${problem}. ${remedy}`;
    return new PeerDmaError('ERR_BAD_CONFIG_SPACE', `${text}; run lspci -xxxx to see its contents`, {
      bdf: this.bdf,
    });
  }
}

/** The lengths that {@link isConfigLength} accepts, for messages. @internal */
export const CONFIG_LENGTHS = `${STD_HEADER_SIZEOF} to ${CFG_SPACE_EXP_SIZE} bytes, a multiple of 4`;

/**
 * Whether config space can have that length: 256 or 4096 bytes, or fewer if the host truncates it.
 *
 * Linux returns 64 bytes to an unprivileged user (`pci_read_config`), and 160 or 1,536 if a chip does not support
 * accesses beyond (`quirk_citrine`, `quirk_nfp6000`).
 *
 * @internal
 */
export function isConfigLength(length: number): boolean {
  return length >= STD_HEADER_SIZEOF && length <= CFG_SPACE_EXP_SIZE && length % 4 === 0;
}

/** Formats an offset as `lspci` does. @internal */
export function at(offset: number): string {
  return `0x${offset.toString(16)}`;
}

/** Reads 32 bits, little-endian; bytes past the end are 0. @internal */
export function u32(bytes: Uint8Array, offset: number): number {
  return (u16(bytes, offset) | (u16(bytes, offset + 2) << 16)) >>> 0;
}

/** Reads 16 bits, little-endian; bytes past the end are 0. @internal */
export function u16(bytes: Uint8Array, offset: number): number {
  return (bytes[offset] ?? 0) | ((bytes[offset + 1] ?? 0) << 8);
}
