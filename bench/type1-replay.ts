/**
 * Replay on the kernel's type1. Runs where VFIO devices are, which is in the testbed: `type1-replay.ts BDF PROGRAM`;
 * prints Figures as JSON.
 */
import { readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { NativeVfioContainer, NativeVfioGroup } from '#native';
import { Type1Target } from '../ts/vfio/type1/type1-target.ts';
import { replaysAgainstC } from './replay-against-c.ts';
import type { Replays } from './replay.ts';
import { type Join, joining } from './targets.ts';

const [bdf = '', program = ''] = process.argv.slice(2);
const group = basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`));

async function ours(run: (join: Join) => Promise<Replays>): Promise<Replays> {
  const container = NativeVfioContainer.open();
  const handle = NativeVfioGroup.open(Number(group));
  await handle.attachAsync(container);
  await container.setIommuAsync();
  try {
    return await run(joining(new Type1Target(container, 'bench')));
  } finally {
    handle.close();
    container.close();
  }
}

console.log(JSON.stringify(await replaysAgainstC('type1', ours, [program, `/dev/vfio/${group}`])));
