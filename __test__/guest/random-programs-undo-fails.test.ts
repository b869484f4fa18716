// Random programs in which the rollback fails as well. Memory that cannot be restored is reported, and all else is as
// before.
import test from 'ava';
import { runPrograms } from '../support/program/run.ts';

test('random programs in which several calls fail at once keep or report each mapping', async (t) => {
  await runPrograms(t, 600, { faults: 3, native: false, atOnce: 1 });
});
