/**
 * Replay on the kernel's type1, against a C program that issues the same ioctls in a loop. Runs where VFIO devices are,
 * which is in the testbed: `type1-replay.ts BDF PROGRAM`; prints Figures as JSON.
 */
import { readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { GuestMemory, VfioContainerManager } from '../ts/index.ts';
import { joinPort } from '../ts/guest/dma-mapper-client.ts';
import { addressSpaceOf } from '../ts/guest/guest-memory.ts';
import type { Type1Target } from '../ts/vfio/type1/type1-target.ts';
import { nanoseconds } from './compile.ts';
import { againstC } from './measure.ts';
import { MAPPINGS, replay } from './replay.ts';

const ROUNDS = 6;

const [bdf = '', program = ''] = process.argv.slice(2);
const group = `/dev/vfio/${basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`))}`;

async function ours(): Promise<number[]> {
  await using empty = await GuestMemory.create();
  await using manager = new VfioContainerManager(empty, { backend: 'type1' });
  await manager.open(bdf);
  const [mapper] = addressSpaceOf(empty).mappers;
  if (mapper === undefined) throw new Error('the container follows guest memory');
  const port = mapper.target as Type1Target;
  // before the manager is closed
  return await replay((memory) => joinPort(addressSpaceOf(memory), port, 'best-effort'), ROUNDS);
}

function theirs(): number[] {
  return nanoseconds(program, group, String(MAPPINGS), String(ROUNDS)).slice(1);
}

const what = `replay of ${MAPPINGS} sub-mappings, type1 in the testbed, against C`;
console.log(JSON.stringify([await againstC(what, MAPPINGS, ours, theirs)]));
