/**
 * The same BAR moves in a Rust program with a linear manager of regions, for comparison.
 */
import { OTHERS } from './bar-move.ts';
import { compileRust, nanoseconds } from './compile.ts';
import { type Figure, counts, listed, median } from './measure.ts';

const MOVES = 400;

const GOAL = 'none: for comparison';

/** A noted figure, not measured here: OpenVMM's membacking (Rust), August 2026. */
const OPENVMM: Figure = {
  what: 'BAR move in OpenVMM membacking: among 10 without host memory; among 10 / 10,000 / 100,000 with it',
  measured: 'noted in 2026-08: 1.7–3.6; 46–50 / 216 / 7,044 µs',
  goal: GOAL,
};

export function linearMoves(): Figure[] {
  const program = compileRust('linear');
  const micros = OTHERS.map((others) => median(nanoseconds(program, String(others), String(MOVES))) / 1000);
  const what = `BAR move among ${counts(OTHERS)} other regions in a linear manager in Rust, without host memory`;
  return [{ what, measured: listed(micros, 1, ' µs'), goal: GOAL }, OPENVMM];
}
