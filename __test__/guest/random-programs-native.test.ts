// Random programs in which native calls fail as well as calls of targets.
import test from 'ava';
import { runPrograms } from '../support/program/run.ts';

test('random programs in which the native core fails as well keep every target in step with the model', async (t) => {
  await runPrograms(t, 500, { faults: 3, native: true, atOnce: 1 });
});
