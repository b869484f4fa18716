#!/usr/bin/env node
/**
 * The entry point of the `peerdma` program.
 */
import { COMMANDS } from './commands.ts';
import { runProgram } from './run.ts';

process.exitCode = await runProgram(process.argv.slice(2), COMMANDS, process);
