/**
 * Replay on the kernel's type1. Runs in the testbed, which has VFIO devices: `type1-replay.ts BDF PROGRAM`; prints
 * figures as JSON.
 */
import { replaysAgainstC } from './replay-against-c.ts';
import type { Replays } from './replay.ts';
import { type Join, groupOf, joinType1 } from './targets.ts';

const [bdf = '', program = ''] = process.argv.slice(2);
const group = groupOf(bdf);

async function ours(run: (join: Join) => Promise<Replays>): Promise<Replays> {
  const { join, close } = await joinType1(group);
  try {
    return await run(join);
  } finally {
    close();
  }
}

console.log(JSON.stringify(await replaysAgainstC('type1', ours, [program, `/dev/vfio/${group}`])));
