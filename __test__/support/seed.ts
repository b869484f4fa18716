/**
 * Which random programs run. The same ones each time, so that a commit passes or doesn't; `PEERDMA_SEED=random` looks for
 * new ones, and a number runs those of that seed again.
 */
import type { ExecutionContext } from 'ava';

const DEFAULT = '20261122';

/** The seed, which is told. */
export function seedOf(t: ExecutionContext): number {
  const wish = process.env['PEERDMA_SEED'] ?? DEFAULT;
  const seed = wish === 'random' ? Date.now() & 0x7fffffff : Number(wish);
  if (!Number.isSafeInteger(seed)) throw new Error(`PEERDMA_SEED is a number or "random", not ${wish}`);
  t.log(`seed ${seed} (PEERDMA_SEED=${seed} runs the same programs again)`);
  return seed;
}
