/**
 * Copies to and from guest-physical addresses, through the files and memory behind them: a page that is missing there
 * is an error here, never a signal.
 */
import { AddressRange } from '../address-range.ts';
import { requireBytes, requireCount } from '../arguments.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import { PeerDmaError } from '../errors.ts';
import type { IntervalMap } from '../interval-map.ts';
import { readStore, writeStore } from '../memory/backing.ts';

/** @internal */
export function readGuest(flat: IntervalMap<SubMapping>, gpa: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(requireCount(length));
  for (const { sub, at, from, to } of pieces(flat, gpa, length)) readStore(sub.store, at, bytes.subarray(from, to));
  return bytes;
}

/** @internal */
export function writeGuest(flat: IntervalMap<SubMapping>, gpa: bigint, bytes: Uint8Array): void {
  for (const { sub, at, from, to } of pieces(flat, gpa, requireBytes(bytes).length))
    writeStore(sub.store, at, bytes.subarray(from, to));
}

interface Piece {
  readonly sub: SubMapping;
  /** Offset into the sub-mapping. */
  readonly at: bigint;
  /** Offsets into the caller's bytes. */
  readonly from: number;
  readonly to: number;
}

/** All pieces, found before the first is copied: an access that can't be done in full is not begun. */
function pieces(flat: IntervalMap<SubMapping>, gpa: bigint, length: number): Piece[] {
  if (length === 0) return [];
  const range = AddressRange.of(gpa, BigInt(length));
  const found: Piece[] = [];
  let next = range.start;
  for (const sub of flat.overlapping(range)) {
    if (sub.range.start > next) break;
    const end = sub.range.end < range.end ? sub.range.end : range.end;
    found.push({
      sub,
      at: next - sub.range.start,
      from: Number(next - range.start),
      to: Number(end - range.start),
    });
    next = end;
  }
  if (next < range.end) {
    throw new PeerDmaError('ERR_NOT_MAPPED', `no guest memory at ${AddressRange.between(next, range.end)}`, { range });
  }
  return found;
}
