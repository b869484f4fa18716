/**
 * The C programs that figures are compared with.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';

/** Compiles `bench/c/NAME.c`; returns the program's path. */
export function compile(name: string): string {
  const folder = new URL('../target/bench/', import.meta.url).pathname;
  const source = new URL(`c/${name}.c`, import.meta.url).pathname;
  mkdirSync(folder, { recursive: true });
  const { status, error } = spawnSync('cc', ['-O2', '-Wall', '-pthread', '-o', folder + name, source], {
    stdio: 'inherit',
  });
  if (status !== 0) throw error ?? new Error(`cc could not compile ${source}`);
  return folder + name;
}

/** Runs a program that prints a number of nanoseconds on each line. */
export function nanoseconds(program: string, ...args: string[]): number[] {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw error ?? new Error(`${program}: ${stderr}`);
  return stdout.trim().split('\n').map(Number);
}
