/** The parts of a BAR that can be mapped into guest memory, and the parts that trap to the VMM. */
import { AddressRange } from '../address-range.ts';
import type { DeviceRegion } from './physical-function.ts';

type Bounds = readonly [start: bigint, end: bigint];

/**
 * Returns the mappable parts as offsets, in whole pages.
 *
 * These are the parts that the host can map, without the pages of emulated structures and of the VMM's traps. A device
 * that could write the MSI-X table of another one could inject interrupts, and the table contains the host's entries.
 *
 * @param trapped offsets of emulated structures, such as the MSI-X table, and of traps
 * @internal
 */
export function mappableAreas(
  { length, mmapAreas }: Pick<DeviceRegion, 'length' | 'mmapAreas'>,
  trapped: readonly AddressRange[],
  pageSize: bigint,
): readonly AddressRange[] {
  const down = (offset: bigint): bigint => offset - (offset % pageSize);
  const up = (offset: bigint): bigint => down(offset + pageSize - 1n);
  let areas = nonEmpty(mmapAreas.map(({ start, end }): Bounds => [up(start), down(end < length ? end : length)]));
  for (const { start, end } of trapped) {
    const [holeStart, holeEnd] = [down(start), up(end)];
    areas = nonEmpty(
      areas.flatMap((area): Bounds[] => [
        [area.start, area.end < holeStart ? area.end : holeStart],
        [area.start > holeEnd ? area.start : holeEnd, area.end],
      ]),
    );
  }
  return areas;
}

/** Returns the other offsets of a BAR of that length. @internal */
export function trappedAreas(length: bigint, mapped: readonly AddressRange[]): readonly AddressRange[] {
  const gaps: Bounds[] = [];
  let from = 0n;
  for (const { start, end } of mapped) {
    gaps.push([from, start]);
    from = end;
  }
  return nonEmpty([...gaps, [from, length]]);
}

function nonEmpty(all: readonly Bounds[]): AddressRange[] {
  return all.filter(([start, end]) => start < end).map(([start, end]) => AddressRange.between(start, end));
}
