/**
 * All commands of the `peerdma` program.
 */
import type { Commands } from './run.ts';
import { topology } from './topology/command.ts';

export const COMMANDS: Commands = { topology };
