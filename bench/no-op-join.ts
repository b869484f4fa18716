/**
 * The cost of guest memory itself when a target joins and leaves, and when the memory closes. Prints figures as JSON.
 */
import { manyMappings } from './many-mappings.ts';
import { type Figure, formatCounts, formatValues, longestGap, median, time } from './measure.ts';
import { joinNoOp } from './targets.ts';

const COUNTS = [10_000, 100_000];
const ROUNDS = 9;
const CLOSES = 3;
const GAP = 10;

/** The microseconds for each sub-mapping, and the longest pause of the event loop in milliseconds. */
class Cost {
  readonly #taken: number[] = [];
  #gap = 0;

  async measure(action: () => Promise<unknown>): Promise<void> {
    this.#gap = Math.max(this.#gap, await longestGap(async () => this.#taken.push(...(await time(1, action)))));
  }

  micros(count: number): number {
    return median(this.#taken) / count / 1000;
  }

  get gap(): number {
    return this.#gap;
  }
}

interface Costs {
  readonly join: Cost;
  readonly leave: Cost;
  readonly close: Cost;
}

async function costs(count: number): Promise<Costs> {
  const [join, leave, close] = [new Cost(), new Cost(), new Cost()];
  for (let closes = 0; closes < CLOSES; closes++) {
    const { memory, file } = await manyMappings(count, 1n);
    for (let round = 0; round < ROUNDS / CLOSES; round++) {
      let handle: Awaited<ReturnType<typeof joinNoOp>> | undefined;
      await join.measure(async () => (handle = await joinNoOp(memory)));
      await leave.measure(async () => handle?.remove());
    }
    await joinNoOp(memory);
    await close.measure(() => memory.close());
    file.close();
  }
  return { join, leave, close };
}

interface Goal {
  /** The limit for each sub-mapping. */
  readonly micros: number;
  /** The counts that the limit applies to. */
  readonly of: readonly number[];
}

function figures(name: string, all: readonly Cost[], goal: Goal): Figure[] {
  const micros = all.map((cost, index) => cost.micros(COUNTS[index] ?? NaN));
  const gaps = all.map(({ gap }) => gap);
  const where = goal.of.length === COUNTS.length ? '' : ` at ${formatCounts(goal.of)}`;
  return [
    {
      name: `${name}, ${formatCounts(COUNTS)} sub-mappings`,
      measured: formatValues(micros, 2, ' µs each'),
      goal: `≤ ${goal.micros} µs each${where}`,
      met: micros.every((each, index) => each <= goal.micros || !goal.of.includes(COUNTS[index] ?? NaN)),
    },
    {
      name: `${name}, longest gap of the event loop`,
      measured: formatValues(gaps, 1, ' ms'),
      goal: `≤ ${GAP} ms`,
      met: gaps.every((gap) => gap <= GAP),
    },
  ];
}

const measured: Costs[] = [];
for (const count of COUNTS) measured.push(await costs(count));
const costsOf = (part: keyof Costs): Cost[] => measured.map((one) => one[part]);
const most = COUNTS.slice(-1);
console.log(
  JSON.stringify([
    ...figures('no-op custom target joins', costsOf('join'), { micros: 0.2, of: COUNTS }),
    ...figures('no-op custom target leaves', costsOf('leave'), { micros: 0.5, of: most }),
    ...figures('GuestMemory.close() with a no-op custom target', costsOf('close'), { micros: 0.5, of: most }),
  ]),
);
