/**
 * Guest memory with many small sub-mappings, none next to another.
 */
import { AddressRange, GuestMemory, MemoryFile } from '../ts/index.ts';
import { addressSpaceOf } from '../ts/guest/guest-memory.ts';
import { openStore } from '../ts/memory/backing.ts';

export const PAGE = 4096n;

/** One region with `count` mappings of a page of one file, each followed by a hole. */
export async function manyMappings(count: number): Promise<{ memory: GuestMemory; file: MemoryFile }> {
  const memory = await GuestMemory.create();
  const file = MemoryFile.create(BigInt(count) * PAGE, { name: 'bench' });
  const range = AddressRange.of(0n, BigInt(count) * 2n * PAGE);
  const region = await memory.regions.addRegion({ name: 'many', range });
  // In one change, by the inner door: the public one makes a change of each, which is not what is measured here.
  const space = addressSpaceOf(memory);
  await space.change((draft) => {
    const id = draft.regions().find(({ name }) => name === 'many')?.id ?? NaN;
    for (let index = 0n; index < count; index++) {
      const store = openStore({ file, offset: index * PAGE }, PAGE);
      draft.map(id, { range: AddressRange.of(2n * index * PAGE, PAGE), store, writable: true });
    }
  });
  await region.map();
  return { memory, file };
}
