/**
 * The cost of joining a built-in target without its ioctls. Runs under the stub of VFIO (`bench/c/no-ioctl.c`):
 * `type1-join.ts PROGRAM`; prints figures as JSON.
 */
import { nanoseconds } from './compile.ts';
import { type Figure, formatCounts, median } from './measure.ts';
import { type Replays, replay } from './replay.ts';
import { type1WithoutIoctl } from './targets.ts';

const MAPPINGS = 10_000;
/** The number of repetitions, each with fresh guest memory, after a first one that compiles the code. */
const REPEATS = 5;
const ROUNDS = 6;

const [program = ''] = process.argv.slice(2);

interface Measured {
  readonly first: number;
  readonly later: number;
  readonly c: number;
}

/** Returns the microseconds for each mapping, with `gap` pages between two. */
async function measure(gap: bigint): Promise<Measured> {
  const type1 = await type1WithoutIoctl();
  const [ours, c]: [Replays[], number[]] = [[], []];
  for (let repeat = 0; repeat <= REPEATS; repeat++) {
    c.push(...nanoseconds(program, String(MAPPINGS), String(gap + 1n), '1'));
    ours.push(await replay({ mappings: MAPPINGS, gap, rounds: ROUNDS }, type1.join));
  }
  type1.close();
  const micros = (values: readonly number[]): number => median(values) / MAPPINGS / 1000;
  const warm = ours.slice(1);
  return {
    first: micros(warm.map(({ first }) => first)),
    later: micros(warm.flatMap(({ later }) => later)),
    c: micros(c.slice(1)),
  };
}

const [apart, adjoining] = [await measure(1n), await measure(0n)];
const name = `of type1 without ioctl, ${formatCounts([MAPPINGS])} sub-mappings`;
const ratio = apart.first / apart.c;
const figures: Figure[] = [
  {
    name: `later join ${name}`,
    measured: `${apart.later.toFixed(2)} µs each`,
    goal: '≤ 0.25 µs each',
    met: apart.later <= 0.25,
  },
  {
    name: `first join ${name}, against mmap and MADV_POPULATE_WRITE in C`,
    measured: `${apart.first.toFixed(2)} against ${apart.c.toFixed(2)} µs each: ${ratio.toFixed(2)}×`,
    goal: '≤ 1.3×',
    met: ratio <= 1.3,
  },
  {
    name: `first join ${name} that adjoin in file and addresses (in C: one mmap, one MADV_POPULATE_WRITE)`,
    measured: `${adjoining.first.toFixed(2)} against ${adjoining.c.toFixed(2)} µs each`,
    goal: '≤ 1 µs each',
    met: adjoining.first <= 1,
  },
];
console.log(JSON.stringify(figures));
