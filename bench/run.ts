/**
 * `npm run bench`: prints the figures as a table. Each is a ratio or a median of this run on this machine. `npm run
 * bench -- NAME…` measures only these benchmarks.
 */
import { barMoves } from './bar-move.ts';
import { runInChild } from './child.ts';
import { compile } from './compile.ts';
import { configWrite } from './config-write.ts';
import { crossing } from './crossing.ts';
import { deviceState } from './device-state.ts';
import { guestAccess } from './guest-access.ts';
import { guestBarMoves, linuxBoot, nvmeExits, portExits } from './guests.ts';
import { importTime } from './import-time.ts';
import { linearMoves } from './linear.ts';
import type { Figure } from './measure.ts';
import { oneAmongMany } from './one-among-many.ts';
import { plugBlocks } from './plug-blocks.ts';
import { populate } from './populate.ts';
import { firstMoves } from './process-start.ts';
import { regionChanges } from './region-changes.ts';
import { simulatedReplay } from './replay.ts';
import { joinNoOp } from './targets.ts';
import { againstC } from './testbed.ts';
import { vhostUserReplay } from './vhost-user-replay.ts';

const memoryPerMapping = (target: string, withoutIoctl: boolean): Figure[] =>
  runInChild('./memory-per-mapping.js', { node: ['--expose-gc'], args: [target], withoutIoctl });

type Part = () => Figure | Figure[] | Promise<Figure | Figure[]>;

const PARTS: Readonly<Record<string, Part>> = {
  importTime,
  simulatedReplay,
  noOpJoin: () => runInChild('./no-op-join.js'),
  type1Join: () => runInChild('./type1-join.js', { args: [compile('first-join')], withoutIoctl: true }),
  barMove: () => barMoves('no-op custom target', joinNoOp, { micros: 15, spread: 1.5 }),
  barMoveVa: () => runInChild('./bar-move-va.js', { withoutIoctl: true }),
  linearMoves,
  regionChanges,
  plugBlocks,
  firstMoves,
  configWrite,
  crossing,
  memoryPerMapping: () => [...memoryPerMapping('no-op', false), ...memoryPerMapping('type1', true)],
  guestAccess,
  oneAmongMany,
  deviceState,
  populate,
  ramReady: () => runInChild('./ram-ready.js', { args: ['stub', compile('populate')], withoutIoctl: true }),
  ramPinned: () => againstC('./ram-ready.js', 'populate'),
  type1Replay: () => againstC('./type1-replay.js', 'replay'),
  vhostUserReplay,
  iommufdReplay: () => againstC('./iommufd-replay.js', 'replay-iommufd', '--kernel', '7.3'),
  portExits,
  guestBarMoves,
  linuxBoot,
  nvmeExits,
};

const names = process.argv.slice(2);
const unknown = names.filter((name) => !Object.hasOwn(PARTS, name));
if (unknown.length > 0) {
  console.error(`[peerdma] unknown benchmark ${unknown.join(', ')}. Choose from: ${Object.keys(PARTS).join(', ')}`);
  process.exit(2);
}

const figures: Figure[] = [];
for (const [name, measure] of Object.entries(PARTS)) {
  if (names.length > 0 && !names.includes(name)) continue;
  console.error(`[peerdma] measuring ${name} …`);
  for (const figure of [await measure()].flat()) {
    console.error(`[peerdma]   ${figure.name}: ${figure.measured} (goal ${figure.goal})`);
    figures.push(figure);
  }
}
console.table(figures.map(({ met, ...figure }) => ({ ...figure, met: met === undefined ? '' : met ? 'yes' : 'no' })));
