// Random programs on guest memory, compared with a page-by-page model after each command. Every target holds the memory
// of the regions, or, after a failed command, the same memory as before.
import test from 'ava';
import { runPrograms } from '../support/program/run.ts';

test('random programs in which one call at a time fails keep every target in step with the model', async (t) => {
  await runPrograms(t, 600, { faults: 1, native: false, atOnce: 1 });
});
