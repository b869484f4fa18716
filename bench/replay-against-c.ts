/**
 * Replays in the testbed compared with a C program that issues the same ioctls. Both have few and many mappings.
 */
import { nanoseconds } from './compile.ts';
import { type Figure, formatCounts, formatValues, median } from './measure.ts';
import { type Replays, type ReplaySize, replay } from './replay.ts';
import type { Join } from './targets.ts';

interface Size extends ReplaySize {
  /** The number of times that both are measured, in turn. */
  readonly pairs: number;
}

/**
 * The sizes.
 *
 * The kernel's type1 allows 65,535 mappings (`dma_entry_limit`), and the process nearly as many (`vm.max_map_count`).
 * The native core uses three quarters of the latter. So the 65,000 mappings adjoin in the file and in addresses, and
 * are one mapping of the process. The smaller numbers are a page apart, and are separate mappings of the process too.
 */
const SIZES: readonly Size[] = [
  { mappings: 1_000, gap: 1n, rounds: 30, pairs: 5 },
  { mappings: 10_000, gap: 1n, rounds: 5, pairs: 3 },
  { mappings: 65_000, gap: 0n, rounds: 4, pairs: 2 },
];

const GOAL = 1.1;

/** The microseconds of a mapping. */
interface Each {
  readonly first: number;
  readonly later: number;
}

/**
 * @param ours passes a function that joins to `run`, and cleans up after it
 * @param program the program with its arguments before `MAPPINGS STRIDE ROUNDS`
 */
export async function replaysAgainstC(
  into: string,
  ours: (run: (join: Join) => Promise<Replays>) => Promise<Replays>,
  program: readonly [string, ...string[]],
): Promise<Figure[]> {
  const mine: Each[] = [];
  const inC: Each[] = [];
  for (const size of SIZES) {
    const [us, c]: [Replays[], Replays[]] = [[], []];
    for (let pair = 0; pair < size.pairs; pair++) {
      c.push(replayInC(program, size));
      us.push(await ours((join) => replay(size, join)));
    }
    mine.push(each(us, size));
    inC.push(each(c, size));
  }
  const sizes = formatCounts(SIZES.map(({ mappings }) => mappings));
  const name = `of ${sizes} sub-mappings into ${into} in the testbed, against C`;
  return [
    figure(`replay ${name}`, mine, inC, ({ later }) => later),
    figure(`first replay ${name}`, mine, inC, ({ first }) => first),
  ];
}

/** The program prints the time to map and fault in its memory, and then that of each round. */
function replayInC([program, ...args]: readonly [string, ...string[]], { mappings, gap, rounds }: Size): Replays {
  const stride = 1n + gap;
  const [setUp = NaN, first = NaN, ...later] = nanoseconds(program, ...args, ...[mappings, stride, rounds].map(String));
  return { first: setUp + first, later };
}

function each(replays: readonly Replays[], { mappings }: Size): Each {
  const first = median(replays.map((one) => one.first));
  const later = median(replays.flatMap((one) => one.later));
  return { first: first / mappings / 1000, later: later / mappings / 1000 };
}

function figure(name: string, mine: readonly Each[], inC: readonly Each[], part: (one: Each) => number): Figure {
  const [us, c] = [mine.map(part), inC.map(part)];
  const ratios = us.map((micros, index) => micros / (c[index] ?? NaN));
  return {
    name,
    measured: `${formatValues(us, 1)} against ${formatValues(c, 1)} µs each: ${formatValues(ratios, 2, '×')}`,
    goal: `≤ ${GOAL.toFixed(2)}×`,
    met: ratios.every((ratio) => ratio <= GOAL),
  };
}
