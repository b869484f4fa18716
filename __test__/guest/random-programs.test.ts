// Random programs on guest memory, each command compared with a model that looks at every page: after each, every target
// holds what the regions say, or, where the command failed, just what it held before.
import test from 'ava';
import { runPrograms } from '../support/program/run.ts';

test('random programs in which one call at a time fails keep every target in step with the model', async (t) => {
  await runPrograms(t, 600, { faults: 1, native: false, atOnce: 1 });
});
