/**
 * Replay to a vhost-user back end. A C program sends the same messages to the same back end.
 */
import { spawn } from 'node:child_process';
import { UnixSocket } from '../ts/index.ts';
import { VhostUserTarget } from '../ts/vhost-user.ts';
import { compile, nanoseconds } from './compile.ts';
import { type Figure, formatValues, median } from './measure.ts';
import { replay } from './replay.ts';

const MAPPINGS = 1_000;
const ROUNDS = 30;
/** The number of times that both are measured, in turn. */
const PAIRS = 5;
const GOAL = 1.2;

export async function vhostUserReplay(): Promise<Figure> {
  const program = compile('vhost-user-replay');
  const mine: number[] = [];
  const inC: number[] = [];
  for (let pair = 0; pair < PAIRS; pair++) {
    inC.push(...nanoseconds(program, String(MAPPINGS), String(ROUNDS)));
    mine.push(...(await replays(program)));
  }
  const [us, c] = [mine, inC].map((values) => median(values) / MAPPINGS / 1000) as [number, number];
  return {
    name: `replay of ${MAPPINGS.toLocaleString('en')} sub-mappings to a vhost-user back end, against C`,
    measured: `${formatValues([us], 1)} against ${formatValues([c], 1)} µs each: ${formatValues([us / c], 2, '×')}`,
    goal: `≤ ${GOAL.toFixed(2)}×`,
    met: us / c <= GOAL,
  };
}

/** The nanoseconds of each replay after the first. */
async function replays(program: string): Promise<readonly number[]> {
  const [ours, theirs] = UnixSocket.pair();
  const child = spawn(program, ['sink'], { stdio: ['ignore', 'inherit', 'inherit', theirs.fd] });
  theirs.close();
  const target = await VhostUserTarget.connect(ours);
  const { later } = await replay({ mappings: MAPPINGS, gap: 1n, rounds: ROUNDS }, (memory) =>
    memory.dmaMappers.addDmaMapper(target),
  );
  await target.close();
  child.kill();
  return later;
}
