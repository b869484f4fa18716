/**
 * All commands of the `peerdma` program.
 */
import type { Commands } from './run.ts';

export const COMMANDS: Commands = {};
