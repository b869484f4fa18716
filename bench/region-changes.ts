/**
 * Small changes of an active region: adds and removes a mapping, switches an overlay on and off.
 */
import { AddressRange, MemoryFile } from '../ts/index.ts';
import { OTHER_MAPPINGS } from './bar-move.ts';
import { PAGE, manyMappings } from './many-mappings.ts';
import { type Figure, formatCounts, formatValues, median, time } from './measure.ts';
import { joinNoOp } from './targets.ts';

const ROUNDS = 3000;
/** The number of last changes to measure; the earlier ones compile the code. */
const MEASURED = 1000;
const GOAL = 15;

const CHANGES = ['mapping added', 'mapping removed', 'overlay on', 'overlay off'] as const;

/** Returns the microseconds of each change. */
async function changesAmong(others: number): Promise<number[]> {
  const { memory, file, region, spare } = await manyMappings(others, 0n);
  await joinNoOp(memory);
  const extra = MemoryFile.create(PAGE, { name: 'extra' });
  const added = { range: AddressRange.of(spare, PAGE), backing: { file: extra, offset: 0n } };
  // The overlay covers one of the mappings with other memory, such as a ROM that shadows RAM.
  const covered = AddressRange.of(BigInt(others >> 1) * PAGE, PAGE);
  const overlay = await memory.regions.addRegion({ name: 'overlay', range: covered, priority: 1_000 });
  await overlay.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file: extra, offset: 0n } });
  const steps = [
    () => region.addMapping(added),
    () => region.removeMappings(added.range),
    () => overlay.mapToGuest(),
    () => overlay.unmapFromGuest(),
  ];
  const taken: number[][] = steps.map(() => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [index, step] of steps.entries()) taken[index]?.push(...(await time(1, step)));
  }
  await memory.close();
  extra.close();
  file.close();
  return taken.map((each) => median(each.slice(-MEASURED)) / 1000);
}

export async function regionChanges(): Promise<Figure[]> {
  const among: number[][] = [];
  for (const others of OTHER_MAPPINGS) among.push(await changesAmong(others));
  return CHANGES.map((change, index) => {
    const micros = among.map((each) => each[index] ?? NaN);
    return {
      name: `${change} among ${formatCounts(OTHER_MAPPINGS)} others, no-op custom target`,
      measured: formatValues(micros, 1, ' µs'),
      goal: `≤ ${GOAL} µs`,
      met: micros.every((each) => each <= GOAL),
    };
  });
}
