/**
 * Runs many random programs as one test.
 */
import type { ExecutionContext } from 'ava';
import fc from 'fast-check';
import { seedOf } from '../seed.ts';
import { program, type Taste } from './arbitrary.ts';
import { Bench, noCounts } from './bench.ts';

/** Runs programs, shrinks the first failing one, and prints statistics. */
export async function runPrograms(t: ExecutionContext, programs: number, taste: Taste): Promise<void> {
  t.timeout(600_000);
  const seed = seedOf(t);
  const counts = noCounts();
  const began = Date.now();
  const property = fc.asyncProperty(program(taste), async (commands) => {
    const bench = await Bench.create(counts);
    try {
      await fc.asyncModelRun(() => ({ model: { bench, ran: 0 }, real: bench }), commands);
      await bench.close();
      counts.programs++;
    } catch (error) {
      await bench.releaseUnchecked();
      throw error;
    }
  });
  await fc.assert(property, { seed, numRuns: programs, includeErrorInReport: true, endOnFailure: false });
  const { commands, operations, faults, hits, failures, undoFailures, quarantines, underQuarantine } = counts;
  t.log(
    `${counts.programs} programs, ${commands} commands, ${operations} operations in ${((Date.now() - began) / 1000).toFixed(1)} s`,
  );
  t.log(
    `${faults} faults asked for, ${hits} calls failed by them, ${failures} commands failed, ${undoFailures} of them in undoing as well`,
  );
  t.log(
    `${quarantines} quarantines, ${underQuarantine} commands under one, ${counts.refusals} refused for it, ${counts.retries} tried again`,
  );
  t.true(commands >= programs * 25, 'programs of some length');
}
