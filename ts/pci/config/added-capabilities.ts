/** Capabilities that the VMM adds to the guest's config space: their bytes and their places. */
import { readArray, readOptions, requireBytes } from '../../arguments.ts';
import { type ErrorCode, PeerDmaError } from '../../errors.ts';
import { requireNumber } from '../../number-types.ts';
import { valueText } from '../../value-text.ts';
import type { Capability, Structure } from './capabilities.ts';
import { occupiedBytes } from './capability-lengths.ts';
import { type ConfigImage, at } from './config-image.ts';
import {
  CAP_ID_AF,
  CAP_ID_EXP,
  CAP_ID_MSI,
  CAP_ID_MSIX,
  CAP_ID_PM,
  CAP_SIZEOF,
  CFG_SPACE_SIZE,
  STD_HEADER_SIZEOF,
} from './registers.ts';

/**
 * A capability for the first 256 bytes of the guest's config space. The guest can read it, and its writes are dropped.
 *
 * {@link nvidiaP2pClique} makes one.
 */
export interface AddedCapability {
  /**
   * Its identifier, 1 to 254, for example 9 for a vendor-specific one. Capabilities with registers that a guest writes
   * cannot be added: power management, MSI, MSI-X, PCI Express and advanced features.
   */
  readonly id: number;
  /** Its bytes after the identifier and the link, 1 to 190. That of a vendor-specific one begins with its length. */
  readonly body: Uint8Array;
  /** Its offset in config space: a multiple of 4, from 0x40 on. Default: a free one */
  readonly offset?: number;
  /** Offsets to try first, in this order, if `offset` is not given. Default: none */
  readonly preferredOffsets?: readonly number[];
}

/** An added capability in its place. @internal */
export interface PlacedCapability extends Capability {
  /** All bytes with identifier and an empty link, padded to a multiple of 4. */
  readonly bytes: Uint8Array;
}

/** Capabilities whose registers the guest writes. */
const ACTIVE: ReadonlySet<number> = new Set([CAP_ID_PM, CAP_ID_MSI, CAP_ID_EXP, CAP_ID_MSIX, CAP_ID_AF]);
/** The link of one capability has 8 bits, and all ones are not an identifier. */
const LAST_ID = 0xfe;
const MOST_BODY = CFG_SPACE_SIZE - STD_HEADER_SIZEOF - CAP_SIZEOF;

/**
 * Reads and checks the capabilities of a caller.
 *
 * @param bdf PCI address, for messages
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`
 * @internal
 */
export function readCapabilities(bdf: string, added: readonly AddedCapability[]): AddedCapability[] {
  return readArray(added, 'added capabilities').map((one) => {
    const given = readOptions(one, ['id', 'body', 'offset', 'preferredOffsets'], 'an added capability');
    const { id, offset } = given;
    requireId(bdf, id);
    const body = requireBytes(given.body).slice();
    if (body.length === 0 || body.length > MOST_BODY) {
      const reason = `its body has 1 to ${MOST_BODY} bytes, not ${body.length}`;
      throw failure(bdf, id, 'ERR_OUT_OF_RANGE', `${reason}. Pass the bytes after the link.`);
    }
    if (offset !== undefined) requireOffset(bdf, id, offset);
    const preferredOffsets = readArray(given.preferredOffsets ?? [], 'preferred offsets');
    for (const preferred of preferredOffsets) requireOffset(bdf, id, preferred);
    return { id, body, preferredOffsets, ...(offset === undefined ? {} : { offset }) };
  });
}

/**
 * Returns the added capabilities in their places. Those with an offset are placed first.
 *
 * @param present all capabilities of the device, hidden ones too
 * @throws {PeerDmaError} `ERR_OVERLAP` for an offset that is in use, or without room; `ERR_OUT_OF_RANGE` past the end
 * @internal
 */
export function placeCapabilities(
  image: ConfigImage,
  present: readonly Capability[],
  added: readonly AddedCapability[],
): PlacedCapability[] {
  const used = occupiedBytes(image, present);
  const places = new Map<AddedCapability, number>();
  const inOrder = [...added.filter(({ offset }) => offset !== undefined), ...added];
  for (const one of inOrder) {
    if (places.has(one)) continue;
    const length = paddedLength(one);
    const offset = one.offset === undefined ? findOffset(image, used, one) : fixedOffset(image, used, one, one.offset);
    places.set(one, offset);
    used.push({ offset, length });
  }
  return added.map((one) => {
    const bytes = new Uint8Array(paddedLength(one));
    bytes[0] = one.id;
    bytes.set(one.body, CAP_SIZEOF);
    return { id: one.id, offset: places.get(one) ?? 0, bytes };
  });
}

function requireId(bdf: string, id: number): void {
  requireNumber(id, 'id', bdf);
  if (Number.isInteger(id) && id > 0 && id <= LAST_ID && !ACTIVE.has(id)) return;
  const fail = (code: ErrorCode, reason: string): PeerDmaError => failure(bdf, id, code, reason);
  if (ACTIVE.has(id)) {
    throw fail('ERR_INVALID_ARGUMENT', 'a guest writes its registers. Add capabilities that a guest only reads.');
  }
  const reason = `an identifier is 1 to ${LAST_ID}, not ${valueText(id)}`;
  throw fail('ERR_OUT_OF_RANGE', `${reason}. Extended capabilities, of 16 bits, cannot be added.`);
}

function requireOffset(bdf: string, id: number, offset: number): void {
  requireNumber(offset, 'offset', bdf);
  if (!Number.isInteger(offset) || offset < STD_HEADER_SIZEOF || offset >= CFG_SPACE_SIZE) {
    const reason = `an offset is ${at(STD_HEADER_SIZEOF)} to ${at(CFG_SPACE_SIZE - 4)}, not ${valueText(offset)}`;
    throw failure(bdf, id, 'ERR_OUT_OF_RANGE', `${reason}. Omit it for a free one.`);
  }
  if (offset % 4 === 0) return;
  throw failure(bdf, id, 'ERR_UNALIGNED', `its offset ${at(offset)} is not a multiple of 4. Omit it for a free one.`);
}

function fixedOffset(image: ConfigImage, used: readonly Structure[], { id, ...one }: AddedCapability, offset: number) {
  const length = paddedLength(one);
  const end = endOf(image);
  const where = `its ${length} bytes at ${at(offset)}`;
  if (offset + length > end) {
    const reason = `${where} pass the end of its part of config space at ${at(end)}`;
    throw failure(image.bdf, id, 'ERR_OUT_OF_RANGE', `${reason}. Omit the offset for a free one.`);
  }
  const other = used.find((each) => overlaps(each, { offset, length }));
  if (other === undefined) return offset;
  const reason = `${where} overlap the capability at ${at(other.offset)}, which has ${other.length}`;
  throw failure(image.bdf, id, 'ERR_OVERLAP', `${reason}. Omit the offset for a free one.`);
}

/**
 * Finds an offset outside of all capabilities whose bytes all read as 0.
 *
 * Other bytes are registers that the device has outside of its capabilities. A guest's driver may use them.
 */
function findOffset(image: ConfigImage, used: readonly Structure[], one: AddedCapability): number {
  const length = paddedLength(one);
  const end = endOf(image);
  const isFree = (offset: number): boolean =>
    offset + length <= end &&
    !used.some((each) => overlaps(each, { offset, length })) &&
    image.bytes.subarray(offset, offset + length).every((byte) => byte === 0);
  const preferred = one.preferredOffsets?.find(isFree);
  if (preferred !== undefined) return preferred;
  for (let offset = STD_HEADER_SIZEOF; offset < end; offset += 4) if (isFree(offset)) return offset;
  const reason = `config space has no ${length} free bytes from ${at(STD_HEADER_SIZEOF)} to ${at(end)}`;
  throw failure(image.bdf, one.id, 'ERR_OVERLAP', `${reason}. Add fewer capabilities, or smaller ones.`);
}

function paddedLength({ body }: Pick<AddedCapability, 'body'>): number {
  return Math.ceil((CAP_SIZEOF + body.length) / 4) * 4;
}

/** The host may have truncated config space. */
function endOf({ size }: ConfigImage): number {
  return Math.min(size, CFG_SPACE_SIZE);
}

function overlaps(a: Structure, b: Structure): boolean {
  return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}

function failure(bdf: string, id: number, code: ErrorCode, reason: string): PeerDmaError {
  const name = Number.isInteger(id) ? at(id) : valueText(id);
  return new PeerDmaError(code, `${bdf}: adding capability ${name} failed: ${reason}`, { bdf });
}
