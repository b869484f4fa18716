/**
 * Replay of many sub-mappings into a target that joins.
 */
import type { DmaMapperHandle, DmaTarget } from '../ts/index.ts';
import { SimulatedIommu } from '../ts/index.ts';
import { manyMappings } from './many-mappings.ts';
import { type Figure, median, time } from './measure.ts';

export const MAPPINGS = 10_000;
const ROUNDS = 15;

/** Nanoseconds of each replay of MAPPINGS sub-mappings into a target. */
export async function replay(target: DmaTarget, rounds: number): Promise<number[]> {
  const { memory, file } = await manyMappings(MAPPINGS, 1n);
  let handle: DmaMapperHandle | undefined;
  const taken = await time(
    rounds,
    async () => {
      handle = await memory.dmaMappers.addDmaMapper(target);
    },
    () => handle?.remove(),
  );
  await memory.close();
  file.close();
  return taken.slice(1); // the first also makes the reservation and faults the pages in
}

export async function simulatedReplay(): Promise<Figure> {
  const each = median(await replay(new SimulatedIommu(), ROUNDS)) / MAPPINGS / 1000;
  return {
    what: `replay of ${MAPPINGS} sub-mappings, simulated`,
    measured: `${each.toFixed(2)} µs each`,
    goal: '≤ 3 µs each',
    met: each <= 3,
  };
}
