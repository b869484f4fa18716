/**
 * Guest memory in which much is mapped, for tests of what an operation on one range reads.
 */
import type { ExecutionContext } from 'ava';
import { AddressRange, type GuestMemory, MemoryFile } from '../../ts/index.ts';
import { guestAddressSpaceOf } from '../../ts/guest/guest-memory.ts';
import { newRegion } from '../../ts/guest/new-region.ts';
import { openBacking } from '../../ts/memory/backing.ts';
import { PAGE, at } from './pages.ts';

/** The address of the first page: 64 MiB. */
export const MANY: bigint = 64n << 20n;

/** Maps a region of `count` pages, each a mapping and a sub-mapping of its own, in one change. */
export async function manyPages(t: ExecutionContext, memory: GuestMemory, count: number): Promise<void> {
  const file = MemoryFile.create(at(count), { name: 'pages' });
  t.teardown(() => file.close());
  const space = guestAddressSpaceOf(memory);
  const state = newRegion(space, { name: 'many pages', length: at(count), kind: 'ram', priority: 100 });
  await space.change((draft) => {
    draft.add(state);
    for (let page = 0; page < count; page++) {
      const memory = openBacking({ file, offset: at(page) }, PAGE);
      draft.addMapping(state.id, { range: AddressRange.of(at(page), PAGE), memory, writable: true });
    }
    draft.activate(state.id, AddressRange.of(MANY, at(count)), true);
  });
}
