/**
 * All commands of the `peerdma` program.
 */
import { EXPLAIN } from './explain.ts';
import type { Commands } from './run.ts';
import { topology } from './topology/command.ts';
import { VIEW } from './view.ts';

export const COMMANDS: Commands = { explain: EXPLAIN, topology, view: VIEW };
