// The journal of a guest memory with assigned devices: BAR changes of the guest, as text and as data.
import test from 'ava';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readJournal, recordJournal } from '../../ts/inspect.ts';
import { scratchFolder } from '../support/scratch.ts';
import { MEMORY, command, writeBar32 } from './support/guest.ts';
import { Fixture } from './support/fixture.ts';

const LOW = 0xe000_0000n;

test('journals a BAR that the guest places and disables, with its trapped parts', async (t) => {
  const fixture = await Fixture.create(t);
  const other = await Fixture.create(t);
  const file = join(scratchFolder(t), 'journal');
  const assigned = await fixture.assign(fixture.simulated());
  const elsewhere = await other.assign(other.simulated());
  using journal = recordJournal(fixture.memory, file);
  for (const device of [assigned, elsewhere]) {
    await writeBar32(device, 0, LOW);
    await command(device, MEMORY);
    await command(device, 0);
  }
  t.is(journal.failure, undefined);
  const entries = [...readJournal(readFileSync(file, 'utf8'))];
  const bars = entries.filter(({ bar }) => bar?.bar === 0);
  const name = `BAR 0 of ${assigned.bdf}`;
  t.is(bars.length, 2, 'of this guest alone');
  t.regex(
    bars[0]?.text ?? '',
    new RegExp(`^${name} is decoded at 0x${LOW.toString(16)}\\.\\.0x\\w+; part of it is trapped: it holds the MSI-X`),
  );
  t.is(bars[0]?.bar?.range?.start, `0x${LOW.toString(16)}`);
  t.is(bars[1]?.text, `${name} is not decoded.`);
  const placed = entries[entries.findIndex(({ bar }) => bar?.bar === 0) - 1];
  t.regex(placed?.text ?? '', / is at 0x\w+\.\.0x\w+ now/);
  t.deepEqual(entries.at(-1)?.snapshot, fixture.memory.inspect());
});
