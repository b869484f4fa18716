/**
 * The seed of random programs. It is constant, so that a commit passes or fails reproducibly. `PEERDMA_SEED=random`
 * searches for new programs, and a number repeats those of that seed.
 */
import type { ExecutionContext } from 'ava';

const DEFAULT = 20261122;

/**
 * Returns the seed and prints it.
 *
 * @param part selects a constant seed for each part of a search that several processes share
 */
export function seedOf(t: ExecutionContext, part: number = 0): number {
  const wish = process.env['PEERDMA_SEED'] ?? DEFAULT + part;
  const seed = wish === 'random' ? Date.now() & 0x7fffffff : Number(wish);
  if (!Number.isSafeInteger(seed)) throw new Error(`PEERDMA_SEED is a number or "random", not ${wish}`);
  t.log(`seed ${seed} (PEERDMA_SEED=${seed} runs the same programs again)`);
  return seed;
}
