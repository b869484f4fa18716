/**
 * Moves of one BAR among other mappings.
 */
import { AddressRange, type DeviceMemory, type GuestMemory, MemoryFile } from '../ts/index.ts';
import { manyMappings } from './many-mappings.ts';
import { formatCounts, type Figure, formatValues, median, spread, time } from './measure.ts';
import type { Join } from './targets.ts';

/**
 * The numbers of other mappings. They are adjoining pages of one file, so that the kernel merges them into one
 * mapping of the process: scattered ones take up to two each of the 65,530 allowed (`vm.max_map_count`).
 */
export const OTHER_MAPPINGS: readonly number[] = [10, 1_000, 100_000];

const MOVES = 4000;
/** The number of last moves to measure; the earlier ones compile the code. */
const MEASURED = 1000;

/** The addresses of the BAR, in turn: above the other mappings. */
const BAR_ADDRESSES = [0x20_0000_0000n, 0x30_0000_0000n] as const;

/** Returns the nanoseconds of each move of a window, back and forth. */
export function timeMoves(window: DeviceMemory, moves: number): Promise<number[]> {
  const [here, there] = BAR_ADDRESSES;
  let at: bigint = here;
  return time(moves, () => window.mapToGuest((at = at === here ? there : here)));
}

/** Creates a window like that of a BAR, and maps it. */
export async function createMappedWindow(
  memory: GuestMemory,
  length: bigint,
): Promise<{ window: DeviceMemory; bar: MemoryFile }> {
  const bar = MemoryFile.create(length, { name: 'BAR' });
  const window = memory.newDeviceMemory({ name: 'BAR', length });
  await window.addMapping({ range: AddressRange.of(0n, length), backing: { file: bar, offset: 0n } });
  await window.mapToGuest(BAR_ADDRESSES[0]);
  return { window, bar };
}

async function moveAmong(others: number, join: Join): Promise<number> {
  const { memory, file } = await manyMappings(others, 0n);
  await join(memory);
  const { window, bar } = await createMappedWindow(memory, 0x1_0000n);
  const taken = await timeMoves(window, MOVES);
  await memory.close();
  bar.close();
  file.close();
  return median(taken.slice(-MEASURED)) / 1000;
}

/** The goals of a figure. */
export interface MoveGoal {
  readonly micros: number;
  /** The largest median divided by the smallest. */
  readonly spread: number;
}

/** @param target a name for the table */
export async function barMoves(target: string, join: Join, goal: MoveGoal): Promise<Figure> {
  const micros: number[] = [];
  for (const others of OTHER_MAPPINGS) micros.push(await moveAmong(others, join));
  return {
    name: `BAR move among ${formatCounts(OTHER_MAPPINGS)} other mappings, ${target}`,
    measured: `${formatValues(micros, 1)} µs: within ${spread(micros).toFixed(2)}×`,
    goal: `≤ ${goal.micros} µs, within ${goal.spread}×`,
    met: spread(micros) <= goal.spread && Math.max(...micros) <= goal.micros,
  };
}
