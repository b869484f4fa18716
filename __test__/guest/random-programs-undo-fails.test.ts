// Random programs in which undoing fails as well: what can't be put back is told, and all the rest is as it was.
import test from 'ava';
import { runPrograms } from '../support/program/run.ts';

test('random programs in which several calls fail at once keep or report each mapping', async (t) => {
  await runPrograms(t, 600, { faults: 3, native: false, atOnce: 1 });
});
