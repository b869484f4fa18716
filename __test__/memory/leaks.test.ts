/**
 * Leaks in a process that changes its guest memory for long.
 */
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Held } from '../support/held.ts';

const ROUNDS = 10_000;
/**
 * V8 maps parts of its heap, and its compiled code grows for long. Private fields are WeakMaps in transpiled sources,
 * and their tables grow, too. Objects and mappings reveal a leak of one in a hundred rounds.
 */
const SLACK = { mappings: 100, residentBytes: 24 << 20, heapBytes: 8 << 20, objects: 100 };

test('ten thousand rounds of moves, joins and failures leave no descriptor, no mapping and no object behind', (t) => {
  t.timeout(180_000);
  // In a process of its own: descriptors and mappings are counted for the whole process, and other tests share this
  // one.
  const script = fileURLToPath(new URL('../support/leak-rounds.ts', import.meta.url));
  const args = [
    '--import=./scripts/typescript/register.mjs',
    '--enable-source-maps',
    '--expose-gc',
    script,
    String(ROUNDS),
  ];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 170_000 });
  t.is(status, 0, stderr);
  const { rounds, before, after } = JSON.parse(stdout) as { rounds: number; before: Held; after: Held };
  t.log(`${rounds} rounds: ${JSON.stringify(before)} before, ${JSON.stringify(after)} after`);
  t.is(rounds, ROUNDS);
  t.is(after.descriptors, before.descriptors);
  for (const what of ['mappings', 'residentBytes', 'heapBytes', 'objects'] as const) {
    t.true(after[what] - before[what] <= SLACK[what], `${what}: ${before[what]}, later ${after[what]}`);
  }
});
