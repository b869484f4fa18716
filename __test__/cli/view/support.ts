/**
 * Makes snapshots, journals and pages of them, as a user does.
 */
import type { ExecutionContext } from 'ava';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AddressRange, type GuestMemory, SimulatedIommu, recordJournal } from '../../../ts/index.ts';
import { at, guest, taggedFile } from '../../support/pages.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { program } from '../support.ts';

/** The page of a file that holds a text. */
export async function pageOf(t: ExecutionContext, text: string, name = 'memory.json'): Promise<string> {
  const file = join(scratchFolder(t), name);
  writeFileSync(file, text);
  const page = `${file}.html`;
  const { status, stderr } = await program(['view', file, '--output', page]);
  if (status !== 0) throw new Error(stderr);
  return page;
}

/** Where the BAR of {@link movingBar} is, in turn. The last is where interrupts go, which no IOMMU maps. */
export const PLACES = [0xe000_0000n, 0xd000_0000n, 0xfee0_0000n] as const;

/** A journal in which a BAR comes, moves, and moves to where a target can't have it. */
export async function movingBar(t: ExecutionContext): Promise<string> {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(256) }] });
  const file = join(scratchFolder(t), 'moves.jsonl');
  using journal = recordJournal(memory, file);
  const rules = [AddressRange.of(0n, 0xfee0_0000n)];
  await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: 'device A', iovaRanges: rules }));
  await placeBar(t, memory);
  t.is(journal.failure, undefined);
  return file;
}

async function placeBar(t: ExecutionContext, memory: GuestMemory): Promise<void> {
  const bar = memory.newDeviceMemory({ name: 'B bar 2', length: at(16) });
  const backing = { file: taggedFile(t, 'BAR of B', 16, 1), offset: 0n };
  await bar.map({ offset: 0n, length: at(16), backing });
  for (const gpa of PLACES) await bar.mapToGuest(gpa);
}
