/**
 * An exit of a guest that a handler in TypeScript answers, compared with C.
 *
 * The guest writes to a port. C answers in the thread of the processor.
 *
 * `port-exits.ts PLACE FIRMWARE PROGRAM` prints a figure as JSON.
 */
import { nanoseconds } from './compile.ts';
import { loadFirmware } from './firmware.ts';
import { type Figure, median } from './measure.ts';

const PORT = 0x3f8;
/** The accesses of a batch: so few that most batches run without another process in between. */
const EXITS = 20;
const BATCHES = 400;
/** The number of first batches that are not measured: they compile the code. */
const WARM_UP = 100;
/** The number of times that both are measured, in turn. */
const PAIRS = 5;
const GOAL = 1.1;

async function inTypeScript(firmware: string): Promise<number[]> {
  const { memory, vm } = await loadFirmware(firmware);
  const batches: number[] = [];
  let [count, begin] = [0, process.hrtime.bigint()];
  const write = (): void => {
    if (++count < EXITS) return;
    const now = process.hrtime.bigint();
    batches.push(Number(now - begin));
    [count, begin] = [0, now];
    if (batches.length === BATCHES) vm.stop('measured');
  };
  vm.ports.add(PORT, 1, { read: () => 0, write });
  await vm.run();
  await vm.close();
  await memory.close();
  return batches;
}

async function portExits(place: string, firmware: string, program: string): Promise<Figure> {
  const [typescript, c]: [number[], number[]] = [[], []];
  for (let pair = 0; pair < PAIRS; pair++) {
    c.push(...nanoseconds(program, firmware, String(EXITS), String(BATCHES)).slice(WARM_UP));
    typescript.push(...(await inTypeScript(firmware)).slice(WARM_UP));
  }
  const [ours, theirs] = [typescript, c].map((batches) => median(batches) / EXITS / 1000) as [number, number];
  return {
    name: `exit of a guest to a port, by a handler in TypeScript against C in the same thread, ${place}`,
    measured: `${ours.toFixed(1)} against ${theirs.toFixed(1)} µs: ${(ours / theirs).toFixed(2)}×`,
    goal: `≤ ${GOAL.toFixed(2)}×`,
    met: ours / theirs <= GOAL,
  };
}

const [place = '', firmware = '', program = ''] = process.argv.slice(2);
console.log(JSON.stringify(await portExits(place, firmware, program)));
