/**
 * Calls of journals and of what explains snapshots.
 */
import type { ExecutionContext } from 'ava';
import { join } from 'node:path';
import { GuestMemory } from '../../../ts/index.ts';
import { explain, readJournal, recordJournal } from '../../../ts/inspect.ts';
import { SimulatedIommu } from '../../../ts/testing.ts';
import { PAGE } from '../../support/pages.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { type Anything, type Calls, options } from '../values.ts';

export async function journalCalls(t: ExecutionContext): Promise<Record<string, Calls>> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: PAGE }], addressWidth: 32 });
  t.teardown(() => memory.close());
  await memory.dmaMappers.addDmaMapper(new SimulatedIommu());
  const file = join(scratchFolder(t), 'journal');
  const snapshot = memory.inspect();
  const [region] = snapshot.regions;
  const [target] = snapshot.targets;
  const all = (lists: object): unknown => explain({ ...snapshot, ...lists }, 0n);
  return {
    recordJournal: {
      memory: (value) => recordJournal(value, file).close(),
      file: (value) => typeof value !== 'string' && recordJournal(memory, value).close(),
    },
    readJournal: {
      journal: async (value) => {
        for await (const entry of readJournal(value)) entry.text.at(0);
      },
      'a piece': async (value) => {
        for await (const entry of readJournal(streamOf(value))) entry.text.at(0);
      },
    },
    explain: {
      address: (value) => explain(snapshot, value),
      target: (value) => explain(snapshot, 0n, value),
      ...options({ ...snapshot }, (given) => explain(given, 0n)),
      ...options({ ...region }, (given) => all({ regions: [given] })),
      ...options({ ...snapshot.flat[0] }, (given) => all({ flat: [given] })),
      ...options({ ...target }, (given) => all({ targets: [given] })),
      ...options({ ...target?.mappings[0] }, (given) => all({ targets: [{ ...target, mappings: [given] }] })),
    },
  };
}

/** A stream of one piece, which is not awaited. */
function streamOf(value: Anything): AsyncIterable<Anything> {
  let done = false;
  const next = async (): Promise<IteratorResult<Anything>> => {
    const result = done ? { done, value: undefined } : { done, value };
    done = true;
    return result;
  };
  return { [Symbol.asyncIterator]: () => ({ next }) };
}
