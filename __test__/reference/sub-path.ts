/** Declarations of a sub-path whose main entry point is `faults.ts`. */
import type { Faulty } from './faults.ts';

interface Absent {
  /** Described. */
  readonly described: string;
}

/** Names a type of the main entry point, and one that no program can import. */
export type Pair = readonly [Faulty, Absent];
