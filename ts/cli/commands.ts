/**
 * All commands of the `peerdma` program.
 */
import { doctorCommand } from './doctor/command.ts';
import { explainCommand } from './explain.ts';
import type { Commands } from './run.ts';
import { topologyCommand } from './topology/command.ts';
import { viewCommand } from './view.ts';

export const COMMANDS: Commands = {
  doctor: doctorCommand,
  explain: explainCommand,
  topology: topologyCommand,
  view: viewCommand,
};
