/**
 * `npm run bench`: the figures as a table. Each is a ratio, or a median, of this run on this machine.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { compile } from './compile.ts';
import type { Figure } from './measure.ts';
import { barMove } from './bar-move.ts';
import { populate } from './populate.ts';
import { simulatedReplay } from './replay.ts';

/** The part that needs real VFIO, in the testbed. */
function type1Replay(): Figure {
  const script = fileURLToPath(import.meta.resolve('./type1-replay.js'));
  const inGuest = `exec node ${script} "$PEERDMA_TESTBED_EDU0" ${compile('replay')}`;
  const { stdout, status } = spawnSync(process.execPath, ['testbed/cli.mjs', '--', 'sh', '-c', inGuest], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (status !== 0) throw new Error(`the testbed failed with status ${status}`);
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Figure;
}

const figures: Figure[] = [];
for (const [what, measure] of Object.entries({ simulatedReplay, barMove, populate, type1Replay })) {
  console.error(`[peerdma] measuring ${what} …`);
  const figure = await measure();
  console.error(`[peerdma]   ${figure.measured} (goal ${figure.goal})`);
  figures.push(figure);
}
console.table(figures.map(({ met, ...figure }) => ({ ...figure, met: met ? 'yes' : 'no' })));
