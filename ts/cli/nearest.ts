/**
 * Suggests a name for a mistyped word.
 */

/** Limit of the edits between a word and a name. */
const MAX_EDITS = 2;
/** Minimum letters of a prefix of a name. */
const MIN_PREFIX = 3;

/** Returns the name that begins with the word, or is at most two edits away. */
export function nearest(word: string, names: readonly string[]): string | undefined {
  const typed = word.replace(/^-+/, '').toLowerCase();
  const completed = names.find((name) => typed.length >= MIN_PREFIX && name.startsWith(typed));
  if (completed !== undefined) return completed;
  const near = names
    .filter((name) => Math.abs(name.length - typed.length) <= MAX_EDITS)
    .map((name) => ({ name, distance: distance(typed, name) }))
    // More than half of a short word must match.
    .filter((each) => each.distance <= MAX_EDITS && 2 * each.distance < each.name.length);
  return near.sort((a, b) => a.distance - b.distance)[0]?.name;
}

/** Returns the edit distance: letters changed, removed or added, and neighbours swapped. */
function distance(from: string, to: string): number {
  let [last, row]: [number[], number[]] = [[], Array.from({ length: to.length + 1 }, (_, index) => index)];
  for (let at = 1; at <= from.length; at++) {
    const next = [at];
    for (let other = 1; other <= to.length; other++) {
      const same = from[at - 1] === to[other - 1];
      const swapped = at > 1 && other > 1 && from[at - 1] === to[other - 2] && from[at - 2] === to[other - 1];
      next[other] = Math.min(
        (row[other] ?? 0) + 1,
        (next[other - 1] ?? 0) + 1,
        (row[other - 1] ?? 0) + (same ? 0 : 1),
        swapped ? (last[other - 2] ?? 0) + 1 : Infinity,
      );
    }
    [last, row] = [row, next];
  }
  return row[to.length] ?? 0;
}
