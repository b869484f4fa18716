/**
 * Compiles the reference programs of the benchmarks, and the stub of VFIO.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { dirname, resolve } from 'node:path';

/** Compiles `bench/c/NAME.c`, from the top of the checkout; returns the program's path. */
export function compile(name: string): string {
  return build(`bench/c/${name}.c`, name, ['cc', '-O2', '-Wall', '-pthread']);
}

/** Compiles `bench/c/NAME.c` as a library for `LD_PRELOAD`; returns its path. */
export function compileLibrary(name: string): string {
  return build(`bench/c/${name}.c`, `${name}.so`, ['cc', '-O2', '-Wall', '-shared', '-fPIC']);
}

/** Assembles `bench/guest/NAME.S`: 64 KiB of firmware, which ends at 4 GiB; returns its path. */
export function compileFirmware(name: string): string {
  const link = '-Wl,-Ttext=0,--oformat=binary,--build-id=none,-e0';
  return build(`bench/guest/${name}.S`, `${name}.bin`, ['cc', '-m32', '-nostdlib', '-static', link]);
}

/** Compiles `bench/rust/NAME.rs`; returns the program's path. */
export function compileRust(name: string): string {
  return build(`bench/rust/${name}.rs`, name, ['rustc', '-O', '--edition', '2024']);
}

function build(source: string, name: string, [compiler = '', ...options]: readonly string[]): string {
  const output = resolve(`target/bench/${name}`);
  mkdirSync(dirname(output), { recursive: true });
  const { status, error } = spawnSync(compiler, [...options, '-o', output, resolve(source)], { stdio: 'inherit' });
  if (status !== 0) throw error ?? new Error(`${compiler} could not compile ${source}`);
  return output;
}

/** Runs a program that prints nanoseconds, one number per line. */
export function nanoseconds(program: string, ...args: string[]): number[] {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw error ?? new Error(`${program}: ${stderr}`);
  return stdout.trim().split('\n').map(Number);
}
