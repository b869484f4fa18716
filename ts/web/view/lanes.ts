/**
 * Arranges overlapping boxes of a column side by side.
 */

/** Returns the lane of each box: the first lane in which it overlaps no other box. */
export function lanesFor(ends: readonly (readonly [from: number, to: number])[]): number[] {
  const size = ends.reduce((most, [, to]) => Math.max(most, to), 0) + 1;
  // Each lane is a Fenwick tree over the starts: it returns the highest end of the boxes that start below a part.
  const lanes: Map<number, number>[] = [];
  return ends.map(([from, to]) => {
    let lane = lanes.findIndex((taken) => endBelow(taken, to) <= from);
    if (lane === -1) lane = lanes.push(new Map()) - 1;
    const taken = lanes[lane];
    for (let at = from + 1; at <= size; at += at & -at) taken?.set(at, Math.max(taken.get(at) ?? 0, to));
    return lane;
  });
}

/** Returns the highest end of the boxes in a lane that start below a part; 0 without such a box. */
function endBelow(taken: ReadonlyMap<number, number>, part: number): number {
  let end = 0;
  for (let at = part; at > 0; at -= at & -at) end = Math.max(end, taken.get(at) ?? 0);
  return end;
}

/** Returns the number of lanes, at least one. */
export function laneCount(lanes: readonly number[]): number {
  return lanes.reduce((most, lane) => Math.max(most, lane + 1), 1);
}
