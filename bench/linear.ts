/**
 * The same BAR moves in a Rust program with a linear manager of regions, for comparison.
 */
import { OTHER_MAPPINGS } from './bar-move.ts';
import { compileRust, nanoseconds } from './compile.ts';
import { type Figure, formatCounts, formatValues, median } from './measure.ts';

const MOVES = 400;

const GOAL = 'none: for comparison';

/** A noted figure, not measured here: OpenVMM's membacking (Rust), August 2026. */
const OPENVMM: Figure = {
  name: 'BAR move in OpenVMM membacking: among 10 without host memory; among 10 / 10,000 / 100,000 with it',
  measured: 'noted in 2026-08: 1.7–3.6; 46–50 / 216 / 7,044 µs',
  goal: GOAL,
};

export function linearMoves(): Figure[] {
  const program = compileRust('linear');
  const micros = OTHER_MAPPINGS.map((others) => median(nanoseconds(program, String(others), String(MOVES))) / 1000);
  const name = `BAR move among ${formatCounts(OTHER_MAPPINGS)} other regions in a linear manager in Rust, without host memory`;
  return [{ name, measured: formatValues(micros, 1, ' µs'), goal: GOAL }, OPENVMM];
}
