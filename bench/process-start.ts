/**
 * The cost of the first BAR moves of a process, and of later ones.
 */
import { runInChild } from './child.ts';
import { type Figure, formatValues, median } from './measure.ts';

const PROCESSES = 5;
const GOAL = 300;

export function firstMoves(): Figure {
  const runs = Array.from({ length: PROCESSES }, () => runInChild<number[]>('./first-moves.js'));
  const part = (from: number, to?: number): number => median(runs.map((moves) => median(moves.slice(from, to))));
  const first = part(0, 1);
  return {
    name: `BAR move: the first of a process / the 2nd to the 10th / after 1,000 (medians of ${PROCESSES} processes)`,
    measured: formatValues([first, part(1, 10), part(1000)], 0, ' µs'),
    goal: `first ≤ ${GOAL} µs`,
    met: first <= GOAL,
  };
}
