/**
 * Replay of many sub-mappings into a target that joins.
 */
import type { DmaMapperHandle, GuestMemory } from '../ts/index.ts';
import { SimulatedIommu } from '../ts/index.ts';
import { manyMappings } from './many-mappings.ts';
import { type Figure, median, time } from './measure.ts';

export const MAPPINGS = 10_000;
const ROUNDS = 15;

/** Nanoseconds of each replay of MAPPINGS sub-mappings into a target. @param join registers it with guest memory */
export async function replay(
  join: (memory: GuestMemory) => Promise<DmaMapperHandle>,
  rounds: number,
): Promise<number[]> {
  const { memory, file } = await manyMappings(MAPPINGS, 1n);
  let handle: DmaMapperHandle | undefined;
  const taken = await time(
    rounds,
    async () => {
      handle = await join(memory);
    },
    () => handle?.remove(),
  );
  await memory.close();
  file.close();
  return taken.slice(1); // the first also makes the reservation and faults the pages in
}

export async function simulatedReplay(): Promise<Figure> {
  const target = new SimulatedIommu();
  const all = await replay((memory) => memory.dmaMappers.addDmaMapper(target), ROUNDS);
  const each = median(all) / MAPPINGS / 1000;
  return {
    what: `replay of ${MAPPINGS} sub-mappings, simulated`,
    measured: `${each.toFixed(2)} µs each`,
    goal: '≤ 3 µs each',
    met: each <= 3,
  };
}
