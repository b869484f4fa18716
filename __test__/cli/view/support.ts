/**
 * Creates snapshots, journals and pages of them, like a user.
 */
import type { ExecutionContext } from 'ava';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AddressRange, type GuestMemory, SimulatedIommu, recordJournal } from '../../../ts/index.ts';
import { at, guest, taggedFile } from '../../support/pages.ts';
import { scratchFolder } from '../../support/scratch.ts';
import { program } from '../support.ts';

/** Creates the page of a file with the given text. */
export async function pageOf(t: ExecutionContext, text: string, name = 'memory.json'): Promise<string> {
  const file = join(scratchFolder(t), name);
  writeFileSync(file, text);
  const page = `${file}.html`;
  const { status, stderr } = await program(['view', file, '--output', page]);
  if (status !== 0) throw new Error(stderr);
  return page;
}

/** Addresses of the BAR of {@link movingBar}, in order. The last one is the MSI window, which no IOMMU maps. */
export const PLACES = [0xe000_0000n, 0xd000_0000n, 0xfee0_0000n] as const;

/** Records a journal in which a BAR is mapped, moves, and moves to an address that a target cannot map. */
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
  await bar.addMapping({ range: AddressRange.of(0n, at(16)), backing });
  for (const gpa of PLACES) await bar.mapToGuest(gpa);
}
