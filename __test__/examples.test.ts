/**
 * The examples that run on simulated devices.
 */
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Runs an example, and returns its exit status and output. */
function run(name: string, ...args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  const script = fileURLToPath(new URL(`../examples/${name}.ts`, import.meta.url));
  return spawnSync(process.execPath, ['--import=./scripts/typescript/register.mjs', script, ...args], {
    encoding: 'utf8',
  });
}

test('edu-to-ivshmem: bytes arrive at the current address of the BAR, and nowhere else', (t) => {
  const { status, stdout, stderr } = run('edu-to-ivshmem');
  t.is(status, 0, stderr);
  const expected = [
    /^1\. .* 0000:00:04\.0 has BAR 0 of 0x100000 bytes; 0000:00:06\.0 has BAR 2 of 0x1000000 bytes$/m,
    /^ {3}the peer's BAR 2 is at 0xe1000000, in guest memory and in the IOMMU: all of it$/m,
    /^4\. the guest moves the BAR to 0x100000000: its bytes are "first"$/m,
  ];
  for (const line of expected) t.regex(stdout, line);
  t.deepEqual(table(stdout), [
    ['first', '0xe1000000', '0xe1000000..0xe2000000', 'first'],
    ['stale', '0xe1000000', '0x100000000..0x101000000', 'first'],
    ['moved', '0x100000000', '0x100000000..0x101000000', 'moved'],
    ['never', '0x100000000', 'off', 'moved'],
  ]);
});

test('edu-to-ivshmem without arguments prints its requirements', (t) => {
  const { status, stderr } = run('edu-to-ivshmem', '0000:00:04.0');
  t.not(status, 0);
  t.regex(stderr, /two PCI addresses are needed/);
});

test('edu-factorial: a driver computes, is interrupted, and moves bytes by DMA', (t) => {
  const { status, stdout, stderr } = run('edu-factorial');
  t.is(status, 0, stderr);
  t.is(stdout, '10! = 3628800\nby DMA: there and back\n');
});

/** The rows that `console.table` printed. */
function table(output: string): string[][] {
  return output
    .split('\n')
    .filter((line) => /^│ \d/.test(line))
    .map((line) => [...line.matchAll(/'([^']*)'/g)].map(([, cell = '']) => cell));
}
