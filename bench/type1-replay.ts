/**
 * Replay on the kernel's type1, against a C program that issues the same ioctls in a loop. Runs where VFIO devices are,
 * which is in the testbed: `type1-replay.ts BDF PROGRAM`; prints a Figure as JSON.
 */
import { readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { GuestMemory, VfioContainerManager } from '../ts/index.ts';
import { addressSpaceOf } from '../ts/guest/guest-memory.ts';
import { nanoseconds } from './compile.ts';
import { type Figure, median } from './measure.ts';
import { MAPPINGS, replay } from './replay.ts';

const PAIRS = 5;
const ROUNDS = 6;

const [bdf = '', program = ''] = process.argv.slice(2);
const group = `/dev/vfio/${basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`))}`;

async function ours(): Promise<number[]> {
  await using empty = await GuestMemory.create();
  await using manager = new VfioContainerManager(empty);
  await manager.open(bdf);
  const [mapper] = addressSpaceOf(empty).mappers;
  if (mapper === undefined) throw new Error('the container follows guest memory');
  return await replay(mapper.target, ROUNDS); // before the manager is closed
}

const [mine, theirs]: [number[], number[]] = [[], []];
for (let pair = 0; pair < PAIRS; pair++) {
  theirs.push(...nanoseconds(program, group, String(MAPPINGS), String(ROUNDS)).slice(1));
  mine.push(...(await ours()));
}
const each = (values: number[]): number => median(values) / MAPPINGS / 1000;
const ratio = each(mine) / each(theirs);
const figure: Figure = {
  what: `replay of ${MAPPINGS} sub-mappings, type1 in the testbed, against C`,
  measured: `${each(mine).toFixed(1)} against ${each(theirs).toFixed(1)} µs each: ${ratio.toFixed(2)}×`,
  goal: '≤ 1.15×',
  met: ratio <= 1.15,
};
console.log(JSON.stringify(figure));
