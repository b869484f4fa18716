/**
 * The plugged blocks of RAM, as the mappings of its region.
 */
import { AddressRange, hex, requireRange } from '../address-range.ts';
import { readArray } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import type { IntervalMap } from '../interval-map.ts';
import { type MemorySlice, advance } from '../memory/backing.ts';
import type { Mapping } from './region-state.ts';

type Mappings = IntervalMap<Mapping>;

/**
 * Converts ranges of blocks to offsets in their RAM: sorted ranges that do not adjoin.
 *
 * @param ranges guest-physical addresses, as a caller passed them
 * @param at those of the RAM
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`; `ERR_OUT_OF_RANGE`; `ERR_UNALIGNED`; `ERR_OVERLAP`
 * @internal
 */
export function offsetsOfBlocks(ranges: readonly AddressRange[], at: AddressRange, blockSize: bigint): AddressRange[] {
  const offsets = readArray(ranges, 'the ranges of blocks').map((range) => {
    requireRange(range);
    if (!at.contains(range)) {
      throw new PeerDmaError('ERR_OUT_OF_RANGE', `${range} are not within the RAM at ${at}`, { range });
    }
    if (range.start % blockSize !== 0n || range.end % blockSize !== 0n) {
      const text = `${range} has a part of a block. Pass whole blocks of ${hex(blockSize)} bytes`;
      throw new PeerDmaError('ERR_UNALIGNED', text, { range });
    }
    return AddressRange.between(range.start - at.start, range.end - at.start);
  });
  offsets.sort((a, b) => (a.start < b.start ? -1 : 1));
  for (const [index, one] of offsets.entries()) {
    const next = offsets[index + 1];
    if (next === undefined || next.start >= one.end) continue;
    const range = AddressRange.between(next.start + at.start, next.end + at.start);
    throw new PeerDmaError('ERR_OVERLAP', `the ranges have the blocks from ${hex(range.start)} on twice`, { range });
  }
  return joined(offsets);
}

/**
 * The mappings of blocks that are plugged in one call.
 *
 * A mapping ends at multiples of `mappingSize`: unplugging a part of it affects no more than the rest of it.
 *
 * @param offsets as {@link offsetsOfBlocks} returns them
 * @param memory of all of the RAM
 * @internal
 */
export function blockMappings(
  offsets: readonly AddressRange[],
  at: AddressRange,
  mappingSize: bigint,
  memory: MemorySlice,
): Mapping[] {
  const mappings: Mapping[] = [];
  for (const { start, end } of offsets) {
    for (let from = start; from < end;) {
      const border = from + mappingSize - ((at.start + from) % mappingSize);
      const to = border < end ? border : end;
      mappings.push({ range: AddressRange.between(from, to), memory: advance(memory, from), writable: true });
      from = to;
    }
  }
  return mappings;
}

/** The plugged parts of a range of offsets: sorted ranges that do not adjoin. @internal */
export function pluggedIn(mappings: Mappings, within: AddressRange): AddressRange[] {
  const clipped = mappings.overlapping(within).map(({ range: { start, end } }) => {
    const [first, last] = [start > within.start ? start : within.start, end < within.end ? end : within.end];
    return AddressRange.between(first, last);
  });
  return joined(clipped);
}

/** @param name of the RAM @throws {PeerDmaError} `ERR_ALREADY_PLUGGED` with the first plugged part @internal */
export function requireUnplugged(mappings: Mappings, offsets: readonly AddressRange[], at: AddressRange): void {
  for (const one of offsets) {
    const [plugged] = pluggedIn(mappings, one);
    if (plugged === undefined) continue;
    const range = AddressRange.between(plugged.start + at.start, plugged.end + at.start);
    throw new PeerDmaError('ERR_ALREADY_PLUGGED', `plug failed: ${range} are plugged already. Omit them.`, { range });
  }
}

/** @throws {PeerDmaError} `ERR_NOT_PLUGGED` with the first part that is not plugged @internal */
export function requirePlugged(mappings: Mappings, offsets: readonly AddressRange[], at: AddressRange): void {
  for (const { start, end } of offsets) {
    const [first] = pluggedIn(mappings, AddressRange.between(start, end));
    if (first?.start === start && first.end === end) continue;
    const from = first?.start === start ? first.end : start;
    const [next] = pluggedIn(mappings, AddressRange.between(from, end));
    const range = AddressRange.between(from + at.start, (next?.start ?? end) + at.start);
    throw new PeerDmaError('ERR_NOT_PLUGGED', `unplug failed: ${range} are not plugged. Omit them.`, { range });
  }
}

/** Joins neighbours of a sorted list. @internal */
export function joined(sorted: readonly AddressRange[]): AddressRange[] {
  const all: AddressRange[] = [];
  for (const range of sorted) {
    const last = all.at(-1);
    if (last?.end === range.start) all[all.length - 1] = AddressRange.between(last.start, range.end);
    else all.push(range);
  }
  return all;
}
