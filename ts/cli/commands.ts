/**
 * All commands of the `peerdma` program.
 */
import { bindCommand, unbindCommand } from './bind/command.ts';
import { EXPLAIN } from './explain.ts';
import type { Commands } from './run.ts';
import { topology } from './topology/command.ts';
import { VIEW } from './view.ts';

export const COMMANDS: Commands = {
  bind: bindCommand(),
  explain: EXPLAIN,
  topology,
  unbind: unbindCommand(),
  view: VIEW,
};
