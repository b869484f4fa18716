/**
 * The first BAR moves of a process, before the code is compiled. Prints the microseconds of each as JSON.
 */
import { placedWindow, timeMoves } from './bar-move.ts';
import { manyMappings } from './many-mappings.ts';
import { joinNoOp } from './targets.ts';

const OTHERS = 10;
const MOVES = 2000;

const { memory, file } = await manyMappings(OTHERS, 0n);
await joinNoOp(memory);
const { window, bar } = await placedWindow(memory, 0x1_0000n);
const taken = await timeMoves(window, MOVES);
await memory.close();
bar.close();
file.close();
console.log(JSON.stringify(taken.map((nanoseconds) => nanoseconds / 1000)));
