/**
 * Reading and writing guest memory, compared with `Buffer.copy` of as many bytes. The method `read` creates an array,
 * so it is also compared with `Buffer.copy` into a new one.
 */
import { GuestMemory, MemoryFile } from '../ts/index.ts';
import { fileMemoryOf } from '../ts/memory/memory-file.ts';
import { type Figure, formatValues, median } from './measure.ts';

const ROUNDS = 21;
const GPA = 0x1000n;
const MAX_BYTES = 1 << 20;

interface Size {
  readonly bytes: number;
  /** The number of accesses in a round. */
  readonly count: number;
  /** The goal as a multiple of `Buffer.copy`; `undefined` for a goal in microseconds. */
  readonly ratio?: number;
}

/** The goal for 8 and 64 bytes, in microseconds: mostly the cost of a function call. */
const MICROS = 0.3;

const SIZES: readonly Size[] = [
  { bytes: 8, count: 100_000 },
  { bytes: 64, count: 100_000 },
  { bytes: 4096, count: 20_000, ratio: 2 },
  { bytes: MAX_BYTES, count: 200, ratio: 1.05 },
];

/**
 * /** Returns the median microseconds of each call. The calls take turns, so that other load affects all of them.
 */
function measureMicros<T extends readonly (() => unknown)[]>(count: number, ...calls: T): { [K in keyof T]: number } {
  const taken = calls.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [index, call] of calls.entries()) {
      const begin = performance.now();
      for (let times = 0; times < count; times++) call();
      taken[index]?.push(((performance.now() - begin) * 1000) / count);
    }
  }
  return taken.map((times) => median(times.slice(1))) as { [K in keyof T]: number };
}

/** Compares the times with the goal: a ratio, or microseconds. */
function compareWithGoal({ ratio }: Size, times: readonly number[], copy: number): Pick<Figure, 'goal' | 'met'> {
  if (ratio === undefined) return { goal: `≤ ${MICROS} µs`, met: times.every((time) => time <= MICROS) };
  return { goal: `≤ ${ratio}×`, met: times.every((time) => time / copy <= ratio) };
}

/** Allocates whole pages: a copy takes up to three times as long between different offsets in a page. */
function newPages(): Buffer<ArrayBuffer> {
  const file = MemoryFile.create(BigInt(MAX_BYTES));
  const pages = Buffer.from(fileMemoryOf(file).view(0n, file.length));
  file.close();
  return pages.fill(1); // faulted in
}

/** Formats the times, and the ratio of each to each of the others. */
function formatComparison(times: readonly number[], copies: readonly number[]): string {
  const ratios = times.flatMap((time) => copies.map((copy) => time / copy));
  return `${formatValues(times, 2)} against ${formatValues(copies, 2)} µs: ${formatValues(ratios, 2, '×')}`;
}

export async function guestAccess(): Promise<Figure[]> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 16n << 20n }] });
  const [source, destination] = [newPages(), newPages()];
  const figures = SIZES.flatMap((size): Figure[] => {
    const { bytes, count } = size;
    const [from, into] = [source.subarray(0, bytes), destination.subarray(0, bytes)];
    const [copy, readInto, write] = measureMicros(
      count,
      () => from.copy(into),
      () => memory.readInto(GPA, into),
      () => memory.write(GPA, from),
    );
    const [fresh, read] = measureMicros(
      count,
      () => from.copy(Buffer.allocUnsafeSlow(bytes)),
      () => memory.read(GPA, bytes),
    );
    return [
      {
        name: `readInto / write of ${bytes} bytes of guest memory, against Buffer.copy`,
        measured: formatComparison([readInto, write], [copy]),
        ...compareWithGoal(size, [readInto, write], copy),
      },
      {
        name: `read of ${bytes} bytes of guest memory, against Buffer.copy into a new array / an old one`,
        measured: formatComparison([read], [fresh, copy]),
        ...compareWithGoal(size, [read], fresh),
      },
    ];
  });
  const scalars = measureMicros(
    100_000,
    () => memory.read32(GPA),
    () => memory.write32(GPA, 5),
    () => memory.read64(GPA),
  );
  await memory.close();
  figures.push({
    name: 'read32 / write32 / read64 of guest memory',
    measured: formatValues(scalars, 3, ' µs'),
    goal: `≤ ${MICROS} µs`,
    met: scalars.every((time) => time <= MICROS),
  });
  return figures;
}
