/**
 * All commands of the `peerdma` program.
 */
import { bindCommand, unbindCommand } from './bind/command.ts';
import { demoCommand } from './demo/command.ts';
import { doctorCommand } from './doctor/command.ts';
import { explainCommand } from './explain.ts';
import type { Commands } from './run.ts';
import { topologyCommand } from './topology/command.ts';
import { viewCommand } from './view.ts';

export const COMMANDS: Commands = {
  bind: bindCommand(),
  demo: demoCommand,
  doctor: doctorCommand,
  explain: explainCommand,
  topology: topologyCommand,
  unbind: unbindCommand(),
  view: viewCommand,
};
