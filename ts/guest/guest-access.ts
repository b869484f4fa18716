/**
 * Copies to and from guest-physical addresses, through the files and memory behind them: a page that is missing there
 * is an error here, never a signal.
 */
import { AddressRange } from '../address-range.ts';
import { newBytes, requireBytes, requireCount } from '../arguments.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { PeerDmaError } from '../errors.ts';
import type { IntervalMap } from '../interval-map.ts';
import { readStore, writeStore } from '../memory/backing.ts';

/** @internal */
export function readGuest(flat: IntervalMap<SubMapping>, gpa: bigint, length: number): Uint8Array {
  if (requireCount(length) === 0) return new Uint8Array();
  const range = AddressRange.of(gpa, BigInt(length));
  const parts = cover(flat, range);
  const bytes = newBytes(length, 'guest memory');
  for (const { value, part } of parts)
    readStore(value.store, part.start - value.range.start, slice(bytes, range, part));
  return bytes;
}

/** @internal */
export function writeGuest(flat: IntervalMap<SubMapping>, gpa: bigint, bytes: Uint8Array): void {
  if (requireBytes(bytes).length === 0) return;
  const range = AddressRange.of(gpa, BigInt(bytes.length));
  for (const { value, part } of cover(flat, range)) {
    writeStore(value.store, part.start - value.range.start, slice(bytes, range, part));
  }
}

/** The bytes of `part` in an array that has those of `whole`. */
function slice(bytes: Uint8Array, whole: AddressRange, part: AddressRange): Uint8Array {
  return bytes.subarray(Number(part.start - whole.start), Number(part.end - whole.start));
}

/** All parts, found before the first is copied: an access that can't be done in full is not begun. */
function cover(flat: IntervalMap<SubMapping>, range: AddressRange): { value: SubMapping; part: AddressRange }[] {
  const { parts, gap } = flat.cover(range);
  if (gap === undefined) return parts;
  throw new PeerDmaError('ERR_NOT_MAPPED', `no guest memory at ${AddressRange.between(gap, range.end)}`, { range });
}
