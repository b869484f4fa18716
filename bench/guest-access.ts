/**
 * Reading and writing guest memory, against `Buffer.copy` of as many bytes.
 */
import { GuestMemory } from '../ts/index.ts';
import { type Figure, listed, median } from './measure.ts';

const ROUNDS = 11;
const GPA = 0x1000n;

interface Size {
  readonly bytes: number;
  /** Accesses of a round. */
  readonly count: number;
  /** As a multiple of `Buffer.copy`; without it, microseconds. */
  readonly ratio?: number;
}

/** Microseconds for 8 and 64 bytes, where calling a function is most of it. */
const MICROS = 0.3;

const SIZES: readonly Size[] = [
  { bytes: 8, count: 100_000 },
  { bytes: 64, count: 100_000 },
  { bytes: 4096, count: 20_000, ratio: 2 },
  { bytes: 1 << 20, count: 200, ratio: 1.05 },
];

/** Microseconds of one call, the median of some rounds. */
function microsOf(count: number, act: () => unknown): number {
  const taken: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const begin = performance.now();
    for (let call = 0; call < count; call++) act();
    taken.push(((performance.now() - begin) * 1000) / count);
  }
  return median(taken.slice(1));
}

export async function guestAccess(): Promise<Figure[]> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 16n << 20n }] });
  const figures = SIZES.map(({ bytes, count, ratio }): Figure => {
    const from = Buffer.alloc(bytes, 1);
    const into = Buffer.alloc(bytes);
    const copy = microsOf(count, () => from.copy(into));
    const times = [() => memory.read(GPA, bytes), () => memory.readInto(GPA, into), () => memory.write(GPA, from)].map(
      (act) => microsOf(count, act),
    );
    const ratios = times.map((time) => time / copy);
    return {
      what: `read / readInto / write of ${bytes} bytes of guest memory, against Buffer.copy`,
      measured: `${listed(times, 2, ' ')}against ${copy.toFixed(2)} µs: ${listed(ratios, 2, '×')}`,
      goal: ratio === undefined ? `≤ ${MICROS} µs` : `≤ ${ratio}×`,
      met: ratio === undefined ? times.every((time) => time <= MICROS) : ratios.every((one) => one <= ratio),
    };
  });
  const scalars = [() => memory.read32(GPA), () => memory.write32(GPA, 5), () => memory.read64(GPA)].map((act) =>
    microsOf(100_000, act),
  );
  await memory.close();
  figures.push({
    what: 'read32 / write32 / read64 of guest memory',
    measured: listed(scalars, 3, ' µs'),
    goal: `≤ ${MICROS} µs`,
    met: scalars.every((time) => time <= MICROS),
  });
  return figures;
}
