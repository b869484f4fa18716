/**
 * One BAR moves; the others stay.
 */
import { MemoryFile, SimulatedIommu } from '../ts/index.ts';
import { manyMappings } from './many-mappings.ts';
import { type Figure, median, time } from './measure.ts';

const OTHERS = [10, 1_000, 100_000];
const MOVES = 400;

async function moveAmong(others: number): Promise<number> {
  const { memory, file } = await manyMappings(others, 0n);
  const bar = MemoryFile.create(0x10000n, { name: 'BAR' });
  await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ maxMappings: 1_000_000 }));
  const window = memory.newDeviceMemory({ name: 'BAR', length: bar.length });
  await window.map({ offset: 0n, length: bar.length, backing: { file: bar, offset: 0n } });
  const [here, there] = [0x20_0000_0000n, 0x30_0000_0000n];
  await window.mapToGuest(here);
  let at = here;
  const taken = await time(MOVES, () => window.mapToGuest((at = at === here ? there : here)));
  await memory.close();
  bar.close();
  file.close();
  return median(taken.slice(MOVES / 4)) / 1000;
}

export async function barMove(): Promise<Figure> {
  const micros: number[] = [];
  for (const others of OTHERS) micros.push(await moveAmong(others));
  const ratio = (micros.at(-1) ?? NaN) / (micros[0] ?? NaN);
  return {
    what: `one BAR move among ${OTHERS.join(' / ')} other mappings`,
    measured: `${micros.map((each) => each.toFixed(1)).join(' / ')} µs: ${ratio.toFixed(2)}×`,
    goal: '≤ 2× from first to last',
    met: ratio <= 2,
  };
}
