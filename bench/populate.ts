/**
 * Faulting in fresh RAM.
 */
import { readFileSync } from 'node:fs';
import { memorySettled } from '#native';
import { AddressRange, MemoryFile } from '../ts/index.ts';
import { VaMapper } from '../ts/memory/va-mapper.ts';
import { openBacking } from '../ts/memory/backing.ts';
import { compile, nanoseconds } from './compile.ts';
import { type Figure, time } from './measure.ts';
import { FAULT_IN_THREADS } from './targets.ts';

const BYTES = 1n << 30n;
const GOAL = 1.05;

interface Comparison {
  readonly name: string;
  readonly rounds: number;
  /** The number of threads of the C program. */
  readonly threads: number;
  readonly transparentHugePages: boolean;
}

/** Returns the present setting, such as `[never]`: then both use small pages for files. */
function hugePageSetting(): string {
  const settings = readFileSync('/sys/kernel/mm/transparent_hugepage/shmem_enabled', 'utf8');
  return /\[\w+\]/.exec(settings)?.[0] ?? 'unknown';
}

const COMPARISONS: readonly Comparison[] = [
  { name: `${FAULT_IN_THREADS} thread(s) each`, rounds: 10, threads: FAULT_IN_THREADS, transparentHugePages: false },
  {
    name: `transparent huge pages (shmem_enabled ${hugePageSetting()}), ${FAULT_IN_THREADS} thread(s) each`,
    rounds: 6,
    threads: FAULT_IN_THREADS,
    transparentHugePages: true,
  },
  { name: `${FAULT_IN_THREADS} thread(s) against two`, rounds: 6, threads: 2, transparentHugePages: false },
];

async function compare({ name, rounds, threads, transparentHugePages }: Comparison): Promise<Figure> {
  const program = compile('populate');
  const range = AddressRange.of(0n, BYTES);
  const [ours, theirs]: [number[], number[]] = [[], []];
  const we = async (): Promise<void> => {
    const va = new VaMapper(40);
    const file = MemoryFile.create(BYTES, { name: 'fresh' });
    const memory = openBacking({ file, offset: 0n }, BYTES, { transparentHugePages });
    va.map({ range, memory, writable: true, isInHostView: false });
    ours.push(...(await time(1, () => va.ensureMapped([range]))));
    await va.close();
    memory.owner.count(0); // it has kept the file open
    file.close();
    await memorySettled(); // the next round would wait for it
  };
  const they = async (): Promise<void> => {
    theirs.push(
      ...nanoseconds(program, String(BYTES), String(threads), '1', transparentHugePages ? 'huge-file' : 'file'),
    );
  };
  // The fastest of each: in a virtual machine, a page that the host must allocate first takes several times as long.
  for (let round = 0; round < rounds; round++) for (const run of round % 2 === 0 ? [we, they] : [they, we]) await run();
  const [mine, c] = [Math.min(...ours), Math.min(...theirs)];
  return {
    name: `ensureMapped of 1 GiB against MADV_POPULATE_WRITE in C, ${name}`,
    measured: `${(mine / 1e6).toFixed(0)} ms against ${(c / 1e6).toFixed(0)} ms: ${(mine / c).toFixed(2)}×`,
    goal: `≤ ${GOAL}×`,
    met: mine / c <= GOAL,
  };
}

export async function populate(): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const comparison of COMPARISONS) figures.push(await compare(comparison));
  return figures;
}
