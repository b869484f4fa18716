// Random programs in which many changes are called without waiting for one another.
import test from 'ava';
import { runPrograms } from '../support/program/run.ts';

test('random programs of calls that do not wait for one another apply them in order, failures included', async (t) => {
  await runPrograms(t, 400, { faults: 2, native: false, atOnce: 8 });
});
