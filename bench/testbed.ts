/**
 * Benchmarks that require VFIO or KVM: they run in the testbed.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseLastLine } from './child.ts';
import { compile } from './compile.ts';
import type { Figure } from './measure.ts';

/**
 * Runs a script in the testbed; returns the figures that it prints as JSON.
 *
 * @param args words of a shell, which has the variables of the testbed
 * @param options of the testbed
 */
function runInTestbed(script: string, args: string, ...options: string[]): Figure[] {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const { stdout, status } = spawnSync(
    process.execPath,
    ['testbed/cli.mjs', ...options, '--', 'sh', '-c', `exec node ${path} ${args}`],
    {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  if (status !== 0) throw new Error(`the testbed failed with status ${status}`);
  return [parseLastLine(stdout) as Figure | Figure[]].flat();
}

/** Runs a benchmark that requires an edu: a script, and the C program that it is compared with. */
export function againstC(script: string, program: string, ...options: string[]): Figure[] {
  const args = `"$PEERDMA_TESTBED_EDU0" ${compile(program)}`;
  return runInTestbed(script, args, '--thread-each', '--timeout', '1800', ...options);
}

/** Runs a benchmark that requires KVM. @param args words of a shell */
export function withKvm(script: string, args: string, ...options: string[]): Figure[] {
  return runInTestbed(script, args, '--kernel', '7.3', '--timeout', '300', ...options);
}
