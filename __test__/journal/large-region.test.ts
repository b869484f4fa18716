// A line about changed mappings of a region does not list the unchanged ones.
import test from 'ava';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AddressRange } from '../../ts/index.ts';
import { readJournal, recordJournal } from '../../ts/inspect.ts';
import { guestAddressSpaceOf } from '../../ts/guest/guest-memory.ts';
import { throwsCode } from '../support/errors.ts';
import { manyPages } from '../support/many-pages.ts';
import { at, guest } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';
import { scratchFolder } from '../support/scratch.ts';
import { valuesRead } from '../support/values-read.ts';

test.serial(
  'records the removal of a mapping of a large region in a short line, which readJournal() rebuilds',
  async (t) => {
    const memory = await guest(t);
    await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'A' }));
    await manyPages(t, memory, 2000);
    const space = guestAddressSpaceOf(memory);
    const [id = -1] = space.map.regions().map((region) => region.id);
    const file = join(scratchFolder(t), 'journal');
    using journal = recordJournal(memory, file);
    const read = await valuesRead(() =>
      space.change((draft) => draft.removeMappings(id, AddressRange.of(at(700), at(2)))),
    );
    t.is(journal.failure, undefined);
    const [, line = ''] = readFileSync(file, 'utf8').split('\n');
    t.true(line.length < 2000, `${line.length} characters`);
    t.true(read < 100, `${read} values read`);
    t.like(JSON.parse(line), {
      text: 'the memory in "many pages" changes.',
      delta: { mappings: [{ region: id, mappings: [[700, 2, []]] }] },
    });
    const last = [...readJournal(readFileSync(file, 'utf8'))].at(-1);
    t.deepEqual(last?.snapshot, memory.inspect());
    t.is(last?.snapshot.regions[0]?.mappings.length, 1998);
    const wrong = readFileSync(file, 'utf8').replace(`{"region":${id},`, '{"region":77,');
    const error = throwsCode(t, () => [...readJournal(wrong)], 'ERR_INVALID_ARGUMENT');
    t.regex(error.message, /^line 2 of the journal: delta\.mappings: the state before has no region with the id 77$/);
  },
);
