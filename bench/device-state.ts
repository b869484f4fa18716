/**
 * Moves 1 GiB of state of a simulated device. Compares it with a copy between two memory files in C.
 */
import { SimulatedDevice } from '../ts/testing.ts';
import { compile, nanoseconds } from './compile.ts';
import { type Figure, median } from './measure.ts';

const BYTES = 1n << 30n;
const ROUNDS = 5;
const buffer = new Uint8Array(1 << 20);
const PIECE = new Uint8Array(1 << 20).fill(1);

function device(bdf: string): SimulatedDevice {
  return new SimulatedDevice({ bdf, bars: [{ index: 0, length: BYTES, kind: 'memory64' }], migration: {} });
}

/** Moves the state of a device into a new one; returns the nanoseconds. */
async function move(source: SimulatedDevice): Promise<number> {
  const target = device('0000:00:02.0');
  const [from, to] = [source.migration, target.migration];
  if (from === undefined || to === undefined) throw new Error('the devices cannot migrate');
  await to.setState('resuming');
  const start = process.hrtime.bigint();
  await from.setState('stop-copy');
  await to.load(from.save({ buffer }));
  await to.setState('running');
  const taken = Number(process.hrtime.bigint() - start);
  await from.setState('running');
  await target.close();
  return taken;
}

export async function deviceState(): Promise<Figure> {
  const program = compile('copy-file');
  const source = device('0000:00:01.0');
  for (let at = 0n; at < BYTES; at += BigInt(PIECE.length)) source.regions[0]?.write(at, PIECE);
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    theirs.push(...nanoseconds(program, String(BYTES), '1'));
    ours.push(await move(source));
  }
  await source.close();
  const speed = median(theirs) / median(ours);
  const gib = (time: number): string => `${(1e9 / time).toFixed(2)} GiB/s`;
  return {
    name: 'migration of 1 GiB of device state, as a part of the speed of a copy between two files in C',
    measured: `${(100 * speed).toFixed(0)} % (${gib(median(ours))} against ${gib(median(theirs))})`,
    goal: '≥ 80 %',
    met: speed >= 0.8,
  };
}
