/**
 * Which parts of a BAR a guest and other devices can have as memory; the rest is left to the VMM to answer for.
 */
import { AddressRange } from '../address-range.ts';
import type { DeviceRegion } from './physical-function.ts';

type Bounds = readonly [start: bigint, end: bigint];

/**
 * The parts, as offsets, in whole pages: what the host can map, less the pages of structures that are emulated. Another
 * device that could write the MSI-X table could interrupt as it pleased, and the host's own entries are in there.
 *
 * @param emulated offsets of what is emulated, such as the MSI-X table
 * @internal
 */
export function mappableAreas(
  { length, mmapAreas }: Pick<DeviceRegion, 'length' | 'mmapAreas'>,
  emulated: readonly AddressRange[],
  pageSize: bigint,
): readonly AddressRange[] {
  const down = (offset: bigint): bigint => offset - (offset % pageSize);
  const up = (offset: bigint): bigint => down(offset + pageSize - 1n);
  let areas = nonEmpty(mmapAreas.map(({ start, end }): Bounds => [up(start), down(end < length ? end : length)]));
  for (const { start, end } of emulated) {
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

/** The other offsets of a BAR of that length. @internal */
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
