/**
 * Faulting fresh RAM in.
 */
import { availableParallelism } from 'node:os';
import { AddressRange, MemoryFile } from '../ts/index.ts';
import { VaMapper } from '../ts/memory/va-mapper.ts';
import { openStore } from '../ts/memory/backing.ts';
import { compile, nanoseconds } from './compile.ts';
import { type Figure, median, time } from './measure.ts';

const BYTES = 1n << 30n;
const ROUNDS = 7;

/** As many as the native core uses. */
const THREADS = Math.min(availableParallelism(), 8);

export async function populate(): Promise<Figure> {
  const program = compile('populate');
  const range = AddressRange.of(0n, BYTES);
  const [ours, theirs]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    const va = new VaMapper(40);
    const file = MemoryFile.create(BYTES, { name: 'fresh' });
    va.map({ range, store: openStore({ file, offset: 0n }, BYTES), writable: true });
    ours.push(...(await time(1, () => va.ensureMapped([range]))));
    va.close();
    file.close();
    theirs.push(...nanoseconds(program, String(BYTES), String(THREADS), '1'));
  }
  const ratio = median(ours) / median(theirs);
  return {
    what: `ensureMapped of 1 GiB against MADV_POPULATE_WRITE in C, ${THREADS} threads each`,
    measured: `${(median(ours) / 1e6).toFixed(0)} ms against ${(median(theirs) / 1e6).toFixed(0)} ms: ${ratio.toFixed(2)}×`,
    goal: '≤ 1.1×',
    met: ratio <= 1.1,
  };
}
