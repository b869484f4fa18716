/**
 * How long something takes, over several rounds. All figures are of one run, on one machine.
 */

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return ((low ?? NaN) + (high ?? NaN)) / 2;
}

/** Nanoseconds that `action` takes; `between` puts things back after each round, unmeasured. */
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

/** The longest time that the event loop had no turn while `action` ran, in milliseconds. */
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

/** Numbers as a row of the table has them. */
export function listed(values: readonly number[], digits: number, unit = ''): string {
  return values.map((value) => value.toFixed(digits)).join(' / ') + unit;
}

/** Counts as a row of the table has them. */
export function counts(values: readonly number[]): string {
  return values.map((value) => value.toLocaleString('en')).join(' / ');
}

/** How many times the smallest the largest is: 1 for a cost that does not depend on what varies. */
export function spread(values: readonly number[]): number {
  return Math.max(...values) / Math.min(...values);
}

/** One line of the table. */
export interface Figure {
  readonly what: string;
  readonly measured: string;
  readonly goal: string;
  /** Not there for a figure that others are compared with. */
  readonly met?: boolean;
}
