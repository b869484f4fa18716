/**
 * Faulting fresh RAM in.
 */
import { availableParallelism } from 'node:os';
import { memorySettled } from '#native';
import { AddressRange, MemoryFile } from '../ts/index.ts';
import { VaMapper } from '../ts/memory/va-mapper.ts';
import { openStore } from '../ts/memory/backing.ts';
import { compile, nanoseconds } from './compile.ts';
import { type Figure, time } from './measure.ts';

const BYTES = 1n << 30n;
const ROUNDS = 10;

/** As many as the native core uses. */
const THREADS = Math.max(1, Math.min(availableParallelism() - 1, 8));

export async function populate(): Promise<Figure> {
  const program = compile('populate');
  const range = AddressRange.of(0n, BYTES);
  const [ours, theirs]: [number[], number[]] = [[], []];
  const we = async (): Promise<void> => {
    const va = new VaMapper(40);
    const file = MemoryFile.create(BYTES, { name: 'fresh' });
    va.show({ range, store: openStore({ file, offset: 0n }, BYTES), writable: true });
    ours.push(...(await time(1, () => va.ensureMapped([range]))));
    va.close();
    file.close();
    await memorySettled(); // the next round would wait for it
  };
  const they = async (): Promise<void> => {
    theirs.push(...nanoseconds(program, String(BYTES), String(THREADS), '1'));
  };
  // The fastest of each: in a virtual machine a page that its host has to find first takes several times as long.
  for (let round = 0; round < ROUNDS; round++) for (const run of round % 2 === 0 ? [we, they] : [they, we]) await run();
  const [mine, c] = [Math.min(...ours), Math.min(...theirs)];
  return {
    what: `ensureMapped of 1 GiB against MADV_POPULATE_WRITE in C, ${THREADS} thread(s) each`,
    measured: `${(mine / 1e6).toFixed(0)} ms against ${(c / 1e6).toFixed(0)} ms: ${(mine / c).toFixed(2)}×`,
    goal: '≤ 1.1×',
    met: mine / c <= 1.1,
  };
}
