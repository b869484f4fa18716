/**
 * The first BAR moves of a process, before the code is compiled. Prints the microseconds of each as JSON.
 */
import { createMappedWindow, timeMoves } from './bar-move.ts';
import { manyMappings } from './many-mappings.ts';
import { joinNoOp } from './targets.ts';

const OTHER_MAPPINGS = 10;
const MOVES = 2000;

const { memory, file } = await manyMappings(OTHER_MAPPINGS, 0n);
await joinNoOp(memory);
const { window, bar } = await createMappedWindow(memory, 0x1_0000n);
const taken = await timeMoves(window, MOVES);
await memory.close();
bar.close();
file.close();
console.log(JSON.stringify(taken.map((nanoseconds) => nanoseconds / 1000)));
