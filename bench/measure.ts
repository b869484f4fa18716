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

/** One line of the table. */
export interface Figure {
  readonly what: string;
  readonly measured: string;
  readonly goal: string;
  readonly met: boolean;
}

/** So many times they are measured in turn. */
const PAIRS = 5;
const GOAL = 1.15;

/** How many times as long each of `count` things takes us as it takes a program in C. */
export async function againstC(
  what: string,
  count: number,
  ours: () => Promise<number[]>,
  theirs: () => number[],
): Promise<Figure> {
  const [mine, c]: [number[], number[]] = [[], []];
  for (let pair = 0; pair < PAIRS; pair++) {
    c.push(...theirs());
    mine.push(...(await ours()));
  }
  const [our, their] = [mine, c].map((values) => median(values) / count / 1000) as [number, number];
  return {
    what,
    measured: `${our.toFixed(1)} against ${their.toFixed(1)} µs each: ${(our / their).toFixed(2)}×`,
    goal: `≤ ${GOAL}×`,
    met: our / their <= GOAL,
  };
}
