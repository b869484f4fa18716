/**
 * A process, or a worker thread, that ends while its devices work. It assigns two devices, keeps one of them doing DMA
 * while it moves the other's BAR, and ends in between: `ending-process.ts PLAN`, a plan in JSON. In a worker thread,
 * `workerData` is the plan.
 */
import { subscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { writeSync } from 'node:fs';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { Edu } from '../../../examples/devices/edu.ts';
import { AddressRange, GuestMemory } from '../../../ts/index.ts';
import { EXIT_STATUS, type FinalReport, type Plan } from '../support/ending-plan.ts';
import { openVfioFiles } from '../support/open-files.ts';
import { pinnedPages, pinnedRoughly } from '../support/pins.ts';
import { newManager } from '../support/backend.ts';

const RAM = 0x1000_0000n;
const PLACES = [0x1_0000_0000n, 0x2_0000_0000n] as const;

const plan = (isMainThread ? JSON.parse(process.argv[2] ?? '') : workerData) as Plan;
const seen = { map: 0, unmap: 0 };
let opened = false;

function say(): void {
  const words: FinalReport = {
    pinned: plan.when === 'pinning' ? pinnedRoughly() : pinnedPages(),
    maps: seen.map,
    unmaps: seen.unmap,
    opened,
    files: openVfioFiles(),
  };
  if (parentPort === null) writeSync(1, `${JSON.stringify(words)}\n`);
  else parentPort.postMessage(words);
}

/** Ends the process; returns only if the plan is to wait. */
function die(): void {
  say();
  if (plan.how === 'SIGKILL') process.kill(process.pid, 'SIGKILL');
  if (plan.how === 'exit') process.exit(EXIT_STATUS);
  if (plan.how === 'throw') throw new Error('planned end');
}

for (const event of ['map', 'unmap'] as const) {
  subscribe(`peerdma:dma.${event}`, () => {
    seen[event]++;
    if (plan.when === event && seen[event] === plan.count) die();
  });
}

async function live(): Promise<void> {
  // Private memory may have huge pages, which Linux 7.3 pins too fast to be observed.
  const memory = await GuestMemory.create({
    ram: [{ start: RAM, length: BigInt(plan.mebibytes) << 20n, private: plan.when !== 'pinning' }],
  });
  const manager = newManager(memory);
  if (plan.when === 'start') die();
  if (plan.when === 'pinning') void endOncePinned();
  const device = await manager.open(plan.edu);
  const peer = await manager.open(plan.peer);
  opened = true;
  const bar = peer.regions[2];
  if (bar === undefined) throw new Error(`${peer.bdf} has no BAR 2`);
  const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
  await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
  await window.mapToGuest(PLACES[0]);
  const edu = new Edu(device);
  if (plan.when === 'running') setTimeout(die, plan.count);
  await Promise.all([transfer(edu), move(async (place) => window.mapToGuest(place))]);
}

async function endOncePinned(): Promise<void> {
  while (pinnedRoughly() < plan.count) await turn();
  die();
}

/** RAM to the BAR, the BAR to RAM, and so on. */
async function transfer(edu: Edu): Promise<never> {
  for (;;) {
    await edu.copy(RAM, PLACES[0], Edu.BUFFER_SIZE);
    await edu.copy(PLACES[0], RAM, Edu.BUFFER_SIZE);
  }
}

async function move(to: (place: bigint) => Promise<void>): Promise<never> {
  for (let move = 1; ; move++) {
    await to(PLACES[move % 2] ?? PLACES[0]);
    await sleep(1);
  }
}

// The parent starts all processes at once, and each waits here for its turn.
if (isMainThread) {
  await once(process.stdin, 'data');
  process.stdin.destroy();
}
await live();
