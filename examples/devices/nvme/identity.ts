/**
 * The identity of a controller and of a namespace.
 *
 * NVM Express Base Specification 2.1, 5.1.13.2.1 (Identify Controller); NVM Command Set Specification 1.1, 4.1.5.1
 * (Identify Namespace).
 */

export interface NvmeController {
  readonly model: string;
  readonly serial: string;
  readonly firmware: string;
}

export interface NvmeNamespace {
  /** Its number. */
  readonly id: number;
  readonly blocks: bigint;
  /** Bytes of a block. */
  readonly blockLength: number;
}

/** Fields of Identify Controller: offset and bytes. */
const SERIAL = [4, 20] as const;
const MODEL = [24, 40] as const;
const FIRMWARE = [64, 8] as const;

/** Offsets in Identify Namespace. */
const SIZE = 0;
const FORMAT = 26;
const FORMATS = 128;

export function controllerFrom(page: Uint8Array): NvmeController {
  const text = ([offset, length]: readonly [number, number]) =>
    new TextDecoder('latin1').decode(page.subarray(offset, offset + length)).trimEnd();
  return { model: text(MODEL), serial: text(SERIAL), firmware: text(FIRMWARE) };
}

/** @throws {Error} for a namespace that does not exist, or whose blocks have metadata */
export function namespaceFrom(id: number, page: Uint8Array): NvmeNamespace {
  const view = new DataView(page.buffer, page.byteOffset);
  const blocks = view.getBigUint64(SIZE, true);
  if (blocks === 0n) throw new Error(`the controller has no namespace ${id} in use`);
  const format = view.getUint8(FORMAT);
  // Bits 0 to 3 are the lower part of the number of the format, bits 5 and 6 the upper one.
  const at = FORMATS + 4 * ((format & 0xf) | ((format & 0x60) >> 1));
  if (view.getUint16(at, true) !== 0)
    throw new Error(`blocks of namespace ${id} have metadata, which is not supported`);
  return { id, blocks, blockLength: 2 ** view.getUint8(at + 2) };
}
