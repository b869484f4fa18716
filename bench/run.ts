/**
 * `npm run bench`: the figures as a table. Each is a ratio, or a median, of this run on this machine.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { compile } from './compile.ts';
import type { Figure } from './measure.ts';
import { barMove } from './bar-move.ts';
import { guestAccess } from './guest-access.ts';
import { oneAmongMany } from './one-among-many.ts';
import { populate } from './populate.ts';
import { simulatedReplay } from './replay.ts';

/** The parts that need real VFIO, in the testbed: a script and the program in C that it is compared with. */
function inGuest(script: string, program: string, ...options: string[]): Figure[] {
  const path = fileURLToPath(import.meta.resolve(script));
  const command = `exec node ${path} "$PEERDMA_TESTBED_EDU0" ${compile(program)}`;
  const { stdout, status } = spawnSync(process.execPath, ['testbed/cli.mjs', ...options, '--', 'sh', '-c', command], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (status !== 0) throw new Error(`the testbed failed with status ${status}`);
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Figure[];
}

const type1Replay = (): Figure[] => inGuest('./type1-replay.js', 'replay');
const iommufdReplay = (): Figure[] => inGuest('./iommufd-replay.js', 'replay-iommufd', '--kernel', '7.3');

const figures: Figure[] = [];
for (const [what, measure] of Object.entries({
  simulatedReplay,
  barMove,
  guestAccess,
  oneAmongMany,
  populate,
  type1Replay,
  iommufdReplay,
})) {
  console.error(`[peerdma] measuring ${what} …`);
  for (const figure of [await measure()].flat()) {
    console.error(`[peerdma]   ${figure.measured} (goal ${figure.goal})`);
    figures.push(figure);
  }
}
console.table(figures.map(({ met, ...figure }) => ({ ...figure, met: met ? 'yes' : 'no' })));
