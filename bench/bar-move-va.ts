/**
 * A BAR move with targets that map memory by host address. Runs under the stub of VFIO (`bench/c/no-ioctl.c`); prints
 * figures as JSON.
 */
import { barMoves } from './bar-move.ts';
import { type1WithoutIoctl } from './targets.ts';

const { join, close } = await type1WithoutIoctl();
const figure = await barMoves('with host memory (type1 without ioctl)', join, { micros: 40, spread: 1.5 });
close();
console.log(JSON.stringify([figure]));
