// Finds tests by a name, or a part of it.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

/** Files of `__test__/vfio` that import other files of tests. */
export const FILES_OF_SEVERAL = ['all', 'iommufd', 'kvm'];

const VFIO = '__test__/vfio/';
const NEAREST = 5;

/**
 * Finds the tests whose path ends with a name, or else the tests whose path contains it.
 *
 * @param {string} name such as `guest/rollback`, `rollback` or `__test__/guest/rollback.test.ts`
 * @param {string} top the top of the checkout
 * @param {{ guestsOnly?: boolean }} [options] `guestsOnly`: finds only tests on real devices
 * @returns {Promise<{ unit: string[], guests: string[], nearest: string[] }>} paths of unit tests; names of tests on
 *   real devices, for `npm run test:guest`; if there are neither, the names that are most similar
 */
export async function findTests(name, top, { guestsOnly = false } = {}) {
  const wanted = name.replace(/^(\.\/)?__test__\//, '').replace(/(\.test)?\.ts$/, '');
  const all = testFiles(top).filter(({ guest }) => guest !== undefined || !guestsOnly);
  const exact = all.filter(({ names }) => names.some((each) => each === wanted || each.endsWith(`/${wanted}`)));
  const found = exact.length > 0 ? exact : all.filter(({ names }) => names.some((each) => each.includes(wanted)));
  const guests = found.flatMap(({ guest }) => guest ?? []);
  return {
    unit: found.flatMap(({ path, guest }) => (guest === undefined ? [path] : [])),
    guests: guests.includes(wanted) ? [wanted] : guests,
    nearest: found.length > 0 ? [] : await similar(wanted, all),
  };
}

/**
 * @param {string} top
 * @returns {{ path: string, guest?: string, names: string[] }[]} `guest`: the name of a test on real devices
 */
function testFiles(top) {
  const files = readdirSync(join(top, '__test__'), { recursive: true }).map((file) => `__test__/${String(file)}`);
  const tests = files.filter((path) => path.endsWith('.test.ts'));
  return [...tests.sort(), ...FILES_OF_SEVERAL.map((name) => `${VFIO}${name}.ts`)].map((path) => {
    const name = path.slice('__test__/'.length).replace(/(\.test)?\.ts$/, '');
    if (!path.startsWith(VFIO)) return { path, names: [name] };
    const guest = name.slice('vfio/'.length);
    return { path, guest, names: [name, guest] };
  });
}

/** Compares names without their folders, too: a misspelt name is often without them. */
async function similar(wanted, all) {
  const { distance } = await import('fastest-levenshtein'); // `npm ci` may have just installed it
  const names = all.flatMap(({ names: [name] }) => name);
  const byName = new Map(names.map((name) => [name, distanceTo(name)]));
  return [...byName]
    .sort(([, a], [, b]) => a - b)
    .map(([name]) => name)
    .slice(0, NEAREST);

  function distanceTo(name) {
    return Math.min(distance(wanted, name), distance(wanted, name.slice(name.lastIndexOf('/') + 1)));
  }
}
