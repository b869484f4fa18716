/**
 * Replays many sub-mappings into a target that joins.
 */
import type { DmaMapperHandle } from '../ts/index.ts';
import { SimulatedIommu } from '../ts/testing.ts';
import { manyMappings } from './many-mappings.ts';
import { type Figure, formatCounts, median, time } from './measure.ts';
import type { Join } from './targets.ts';

export interface ReplaySize {
  readonly mappings: number;
  /** The number of pages between two mappings. */
  readonly gap: bigint;
  readonly rounds: number;
}

/** The nanoseconds of the first replay and of the later ones. */
export interface Replays {
  /**
   * Includes reserving addresses. If the target requires it, includes mapping memory in this process and faulting it
   * in.
   */
  readonly first: number;
  readonly later: readonly number[];
}

/** Replays fresh guest memory into a target again and again. */
export async function replay({ mappings, gap, rounds }: ReplaySize, join: Join): Promise<Replays> {
  const { memory, file } = await manyMappings(mappings, gap);
  let handle: DmaMapperHandle | undefined;
  const [first = NaN, ...later] = await time(
    rounds,
    async () => {
      handle = await join(memory);
    },
    () => handle?.remove(),
  );
  await memory.close();
  file.close();
  return { first, later };
}

const SIMULATED: ReplaySize = { mappings: 10_000, gap: 1n, rounds: 15 };

export async function simulatedReplay(): Promise<Figure> {
  const target = new SimulatedIommu();
  const { later } = await replay(SIMULATED, (memory) => memory.dmaMappers.addDmaMapper(target));
  const each = median(later) / SIMULATED.mappings / 1000;
  return {
    name: `replay of ${formatCounts([SIMULATED.mappings])} sub-mappings, simulated`,
    measured: `${each.toFixed(2)} µs each`,
    goal: '≤ 3 µs each',
    met: each <= 3,
  };
}
