/**
 * `npm run bench`: the figures as a table. Each is a ratio, or a median, of this run on this machine.
 */
import { spawnSync } from 'node:child_process';
import { compile } from './compile.ts';
import type { Figure } from './measure.ts';
import { barMove } from './bar-move.ts';
import { populate } from './populate.ts';
import { simulatedReplay } from './replay.ts';

/** The part that needs real VFIO, in the testbed. */
function type1Replay(): Figure {
  const inGuest = ['sh', '-c', `exec "$0" "$@"`, process.execPath, '--import=@oxc-node/core/register'];
  const script = ['bench/type1-replay.ts', '$PEERDMA_TESTBED_EDU0', compile('replay')];
  const command = ['testbed/cli.mjs', '--timeout', '300', '--', 'sh', '-c', [...inGuest.slice(3), ...script].join(' ')];
  const { stdout, status } = spawnSync(process.execPath, command, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (status !== 0) throw new Error(`the testbed failed with status ${status}`);
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Figure;
}

const figures: Figure[] = [];
for (const [what, measure] of Object.entries({ simulatedReplay, barMove, populate, type1Replay })) {
  console.error(`[peerdma] measuring ${what} …`);
  figures.push(await measure());
}
console.table(figures.map(({ met, ...figure }) => ({ ...figure, met: met ? 'yes' : 'no' })));
