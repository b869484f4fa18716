/**
 * A guest's write to config space that moves a BAR, compared with the move alone.
 */
import { AssignedDevice } from '../ts/index.ts';
import { SimulatedDevice } from '../ts/testing.ts';
import { createMappedWindow, timeMoves } from './bar-move.ts';
import { manyMappings } from './many-mappings.ts';
import { type Figure, median, time } from './measure.ts';
import { joinNoOp } from './targets.ts';

const BAR_LENGTH = 0x1_0000n;
const [COMMAND, BAR0] = [0x04, 0x10];
const MEMORY_DECODE = 2;
const BAR_ADDRESSES = [0x8000_0000, 0x9000_0000] as const;
/** The number of batches, in turn; the first ones compile the code. */
const BATCHES = 12;
const WARM_UP = 4;
const MOVES = 500;
const GOAL = 1.3;

export async function configWrite(): Promise<Figure> {
  const { memory, file } = await manyMappings(10, 0n);
  await joinNoOp(memory);
  const bars = [{ index: 0, length: BAR_LENGTH }];
  const device = await AssignedDevice.create({ device: new SimulatedDevice({ bdf: '0000:00:04.0', bars }), memory });
  await device.configWrite(BAR0, 4, BAR_ADDRESSES[0]);
  await device.configWrite(COMMAND, 2, MEMORY_DECODE);
  const { window, bar } = await createMappedWindow(memory, BAR_LENGTH);
  const [writes, moves]: [number[], number[]] = [[], []];
  let written = 0;
  for (let batch = 0; batch < BATCHES; batch++) {
    const w = await time(MOVES, () =>
      device.configWrite(BAR0, 4, BAR_ADDRESSES[++written % BAR_ADDRESSES.length] ?? 0),
    );
    const m = await timeMoves(window, MOVES);
    if (batch >= WARM_UP) {
      writes.push(...w);
      moves.push(...m);
    }
  }
  await device.close();
  await memory.close();
  bar.close();
  file.close();
  const [write, move] = [writes, moves].map((taken) => median(taken) / 1000) as [number, number];
  return {
    name: 'configWrite that moves a BAR of a simulated device, against the move alone',
    measured: `${write.toFixed(1)} against ${move.toFixed(1)} µs: ${(write / move).toFixed(2)}×`,
    goal: `≤ ${GOAL}×`,
    met: write / move <= GOAL,
  };
}
