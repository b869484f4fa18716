/**
 * All commands of the `peerdma` program.
 */
import { explainCommand } from './explain.ts';
import type { Commands } from './run.ts';
import { topologyCommand } from './topology/command.ts';
import { viewCommand } from './view.ts';

export const COMMANDS: Commands = {
  explain: explainCommand,
  topology: topologyCommand,
  view: viewCommand,
};
