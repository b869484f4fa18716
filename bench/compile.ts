/**
 * The C programs that figures are compared with.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

/** Compiles `bench/c/NAME.c`, from the top of the checkout; returns the program's path. */
export function compile(name: string): string {
  const program = resolve(`target/bench/${name}`);
  const source = resolve(`bench/c/${name}.c`);
  mkdirSync(dirname(program), { recursive: true });
  const { status, error } = spawnSync('cc', ['-O2', '-Wall', '-pthread', '-o', program, source], { stdio: 'inherit' });
  if (status !== 0) throw error ?? new Error(`cc could not compile ${source}`);
  return program;
}

/** Runs a program that prints a number of nanoseconds on each line. */
export function nanoseconds(program: string, ...args: string[]): number[] {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw error ?? new Error(`${program}: ${stderr}`);
  return stdout.trim().split('\n').map(Number);
}
