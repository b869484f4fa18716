/**
 * `npm test -- NAME`.
 */
import test, { type ExecutionContext } from 'ava';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { scratchFolder } from '../support/scratch.ts';
import { findTests } from './scripts.ts';

const FILES = [
  'guest/rollback.test.ts',
  'guest/random-programs.test.ts',
  'guest/random-programs-native.test.ts',
  'guest/support.ts',
  'pci/interrupts.test.ts',
  'vfio/interrupts.test.ts',
  'vfio/assigned/interrupts.test.ts',
  'vfio/assigned/reset.test.ts',
  'vfio/all.ts',
  'vfio/iommufd.ts',
];

function checkout(t: ExecutionContext): string {
  const top = scratchFolder(t);
  for (const file of FILES) {
    const path = join(top, '__test__', file);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, '');
  }
  return top;
}

test('finds a unit test by its path, its name and a part of its name', async (t) => {
  const top = checkout(t);
  const rollback = { unit: ['__test__/guest/rollback.test.ts'], guests: [], nearest: [] };
  for (const name of ['__test__/guest/rollback.test.ts', 'guest/rollback', 'rollback', 'ollbac']) {
    t.deepEqual(await findTests(name, top), rollback, name);
  }
});

test('prefers a whole name to a part of a name', async (t) => {
  const top = checkout(t);
  t.deepEqual((await findTests('random-programs', top)).unit, ['__test__/guest/random-programs.test.ts']);
  t.is((await findTests('random', top)).unit.length, 2);
});

test('finds the tests of a guest by their names below __test__/vfio', async (t) => {
  const top = checkout(t);
  for (const name of ['assigned/reset', 'vfio/assigned/reset', '__test__/vfio/assigned/reset.test.ts', 'reset']) {
    t.deepEqual(await findTests(name, top), { unit: [], guests: ['assigned/reset'], nearest: [] }, name);
  }
  t.deepEqual((await findTests('all', top)).guests, ['all']);
  t.deepEqual((await findTests('interrupts', top)).guests, ['interrupts']);
  t.deepEqual((await findTests('interrupts', top)).unit, ['__test__/pci/interrupts.test.ts']);
  t.deepEqual((await findTests('interrupts', top, { guestsOnly: true })).unit, []);
});

test('returns the nearest names if none matches', async (t) => {
  const { unit, guests, nearest } = await findTests('rolback', checkout(t));
  t.deepEqual([unit, guests], [[], []]);
  t.is(nearest[0], 'guest/rollback');
  t.false(nearest.includes('guest/support'));
});
