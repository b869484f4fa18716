// Compares the findings of each file with the checked-in counts, which only go down.

/** @typedef {Record<string, number>} Counts the findings of each file that has some, by path */

/**
 * @param {Counts} allowed
 * @param {Counts} found
 * @returns {{ worse: string[], better: string[] }} paths of files with more findings, and with fewer
 */
export function compareCounts(allowed, found) {
  const paths = [...new Set([...Object.keys(allowed), ...Object.keys(found)])].sort();
  const change = (path) => (found[path] ?? 0) - (allowed[path] ?? 0);
  return { worse: paths.filter((path) => change(path) > 0), better: paths.filter((path) => change(path) < 0) };
}

/**
 * Checks that the total does not rise. A file may have more findings, since files are renamed and split.
 *
 * @param {Counts} allowed
 * @param {Counts} found
 */
export function isAllowedUpdate(allowed, found) {
  return total(found) <= total(allowed);
}

/** @param {Counts} counts */
export function total(counts) {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}
