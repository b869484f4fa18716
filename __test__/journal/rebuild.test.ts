// readJournal() rebuilds, for each line, the snapshot that inspect() returned at that moment.
import test from 'ava';
import fc from 'fast-check';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { MemorySettledEvent, MemorySnapshot } from '../../ts/index.ts';
import { readJournal, recordJournal } from '../../ts/inspect.ts';
import { program } from '../support/program/arbitrary.ts';
import { Bench, noCounts } from '../support/program/bench.ts';
import { scratchFolder } from '../support/scratch.ts';
import { seedOf } from '../support/seed.ts';

/** Leaves out states that are equal to the state before. */
function distinct(snapshots: readonly MemorySnapshot[]): string[] {
  const texts = snapshots.map((snapshot) => JSON.stringify(snapshot, sorted, 1));
  return texts.filter((text, index) => text !== texts[index - 1]);
}

/** Sorts the fields of an object: two equal snapshots may have them in different orders. */
function sorted(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function firstDifference(is: string, was: string): string {
  const [lines, others] = [is.split('\n'), was.split('\n')];
  const at = others.findIndex((line, index) => line !== lines[index]);
  const around = (all: readonly string[]): string => all.slice(Math.max(0, at - 8), at + 8).join('\n');
  return `it is\n${around(lines)}\nand was\n${around(others)}`;
}

test('rebuilds the snapshot of inspect() after thousands of random changes, failed ones included', async (t) => {
  t.timeout(300_000);
  const seed = seedOf(t);
  const folder = scratchFolder(t);
  const counts = noCounts();
  let states = 0;
  let failed = 0;
  const property = fc.asyncProperty(program({ faults: 2, native: false, atOnce: 1 }), async (commands) => {
    const bench = await Bench.create(counts);
    const { memory } = bench.world;
    const file = join(folder, 'journal');
    const seen = [memory.inspect()];
    const look = (message: unknown): void => {
      if ((message as MemorySettledEvent).memory === memory.id) seen.push(memory.inspect());
    };
    const journal = recordJournal(memory, file);
    subscribe('peerdma:memory.settled', look);
    try {
      await fc.asyncModelRun(() => ({ model: { bench, ran: 0 }, real: bench }), commands);
      await bench.close();
    } catch (error) {
      await bench.releaseUnchecked();
      throw error;
    } finally {
      unsubscribe('peerdma:memory.settled', look);
      journal.close();
    }
    if (journal.failure !== undefined) throw journal.failure;
    const entries = [...readJournal(readFileSync(file, 'utf8'))];
    const had = distinct(seen);
    const got = distinct(entries.map(({ snapshot }) => snapshot));
    states += had.length;
    failed += entries.filter(({ error }) => error !== undefined).length;
    if (got.length !== had.length) throw new Error(`${got.length} states from ${had.length}`);
    for (const [index, state] of had.entries()) {
      if (got[index] !== state) throw new Error(`state ${index}: ${firstDifference(got[index] ?? '', state)}`);
    }
  });
  await fc.assert(property, { seed, numRuns: 60, includeErrorInReport: true, endOnFailure: true });
  t.log(`${states} states, ${failed} lines of failures`);
  t.true(states > 1000);
  t.true(failed > 100);
});
