/**
 * Measurements in a separate Node process: with a fresh heap, with options of Node, or without ioctls.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { compileLibrary } from './compile.ts';

export interface ChildOptions {
  /** The options of Node. */
  readonly node?: readonly string[];
  readonly args?: readonly string[];
  /** Whether to use the type1 stub of `bench/c/no-ioctl.c`. */
  readonly withoutIoctl?: boolean;
}

/** Runs a script of this folder; returns the JSON of the last line that it prints. */
export function runInChild<T>(script: string, { node = [], args = [], withoutIoctl = false }: ChildOptions = {}): T {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const stub = withoutIoctl ? { LD_PRELOAD: compileLibrary('no-ioctl') } : {};
  const { stdout, status, error } = spawnSync(process.execPath, [...node, path, ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...stub },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (status !== 0) throw error ?? new Error(`${script} failed with status ${status}`);
  return parseLastLine(stdout) as T;
}

/** Parses the last line as JSON. */
export function parseLastLine(output: string): unknown {
  return JSON.parse(output.trim().split('\n').at(-1) ?? '');
}
