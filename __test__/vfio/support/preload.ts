/**
 * Programs of `programs/` that run with a library of `preload/`, which scripts/compile.mjs compiles.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { extname, join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { scratchFolder } from '../../support/scratch.ts';

/** The length of a file that a library shares with its program. */
const SHARED = 4096;

/** Creates a file that a library and its program map. */
export function sharedFile(t: ExecutionContext, name: string): string {
  const path = join(scratchFolder(t), name);
  const fd = openSync(path, 'w');
  ftruncateSync(fd, SHARED);
  closeSync(fd);
  return path;
}

/**
 * Runs a program with libraries, and returns the JSON that it prints.
 *
 * @param libraries the settings of each library: the variable that it reads in the environment
 */
export function runPreloaded(
  t: ExecutionContext,
  program: string,
  libraries: Readonly<Record<string, NodeJS.ProcessEnv>>,
  ...args: readonly string[]
): unknown {
  const script = new URL(`../programs/${program}${extname(import.meta.url)}`, import.meta.url).pathname;
  const paths = Object.keys(libraries).map((name) => new URL(`../preload/${name}.so`, import.meta.url).pathname);
  const env = Object.assign(
    { ...process.env, LD_PRELOAD: paths.join(' ') },
    ...Object.values(libraries),
  ) as NodeJS.ProcessEnv;
  const command = [...process.execArgv, script, ...args];
  const { stdout, stderr, status, signal } = spawnSync(process.execPath, command, {
    encoding: 'utf8',
    env,
    timeout: 240_000,
  });
  t.is(status, 0, `${program}: ${signal ?? ''} ${stderr}`);
  if (stderr !== '') t.log(stderr);
  return JSON.parse(stdout);
}
