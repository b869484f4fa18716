/**
 * Runs of sub-mappings whose addresses adjoin. One call of the native core is enough for a run.
 */
import type { SubMapping } from '../dma/sub-mapping.ts';

/**
 * Splits sub-mappings into runs, in their order.
 *
 * @param continues whether a run can contain a sub-mapping and then the next one, whose addresses adjoin. Default: yes
 * @internal
 */
export function runsOf(
  subs: readonly SubMapping[],
  continues: (sub: SubMapping, next: SubMapping) => boolean = () => true,
): SubMapping[][] {
  const runs: SubMapping[][] = [];
  for (const sub of subs) {
    const run = runs.at(-1);
    const last = run?.at(-1);
    if (run !== undefined && last?.range.end === sub.range.start && continues(last, sub)) run.push(sub);
    else runs.push([sub]);
  }
  return runs;
}
