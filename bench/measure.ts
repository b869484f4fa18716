/**
 * Measures the duration of an action over several rounds. All figures are of one run, on one machine.
 */

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return ((low ?? NaN) + (high ?? NaN)) / 2;
}

/** Returns the nanoseconds of each `action`; `between` restores the state after each round, unmeasured. */
export async function time(
  rounds: number,
  action: () => unknown,
  between: () => unknown = () => undefined,
): Promise<number[]> {
  const taken: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const begin = process.hrtime.bigint();
    await action();
    taken.push(Number(process.hrtime.bigint() - begin));
    await between();
  }
  return taken;
}

/** Returns the longest pause of the event loop while `action` ran, in milliseconds. */
export async function longestGap(action: () => Promise<unknown>): Promise<number> {
  let [last, longest] = [performance.now(), 0];
  const turn = (): void => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  };
  const timer = setInterval(turn, 0);
  try {
    await action();
    turn();
  } finally {
    clearInterval(timer);
  }
  return longest;
}

/** Formats measured values for a row of the table. */
export function formatValues(values: readonly number[], digits: number, unit = ''): string {
  return values.map((value) => value.toFixed(digits)).join(' / ') + unit;
}

/** Formats counts for a row of the table. */
export function formatCounts(values: readonly number[]): string {
  return values.map((value) => value.toLocaleString('en')).join(' / ');
}

/** Returns the largest value divided by the smallest: 1 for a cost that does not depend on the count. */
export function spread(values: readonly number[]): number {
  return Math.max(...values) / Math.min(...values);
}

/** A row of the table. */
export interface Figure {
  readonly name: string;
  readonly measured: string;
  readonly goal: string;
  /** Whether the goal is met; `undefined` for a figure without a goal. */
  readonly met?: boolean;
}
