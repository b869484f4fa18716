/**
 * Suggests a name for a mistyped word.
 */

/** Letters that may be wrong, missing, added or swapped. */
const MOST_WRONG = 2;
/** Letters that are enough for the beginning of a name. */
const LEAST_BEGINNING = 3;

/** The name that begins with the word, or that is at most two edits away; `undefined` when there is none. */
export function nearest(word: string, names: readonly string[]): string | undefined {
  const typed = word.replace(/^-+/, '').toLowerCase();
  const begun = names.find((name) => typed.length >= LEAST_BEGINNING && name.startsWith(typed));
  if (begun !== undefined) return begun;
  const near = names
    .filter((name) => Math.abs(name.length - typed.length) <= MOST_WRONG)
    .map((name) => ({ name, distance: distance(typed, name) }))
    // Of a short word more than half has to be right.
    .filter((each) => each.distance <= MOST_WRONG && 2 * each.distance < each.name.length);
  return near.sort((a, b) => a.distance - b.distance)[0]?.name;
}

/** Edits that make one word of the other: a letter changed, left out or added, or two neighbours swapped. */
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
