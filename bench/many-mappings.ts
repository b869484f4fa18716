/**
 * Guest memory with many small sub-mappings.
 */
import { AddressRange, GuestMemory, MemoryFile, type Region } from '../ts/index.ts';
import { guestAddressSpaceOf } from '../ts/guest/guest-memory.ts';
import { newRegion } from '../ts/guest/new-region.ts';
import { openBacking } from '../ts/memory/backing.ts';

export const PAGE = 4096n;

/** The number of unmapped pages of the region after its last mapping. */
const SPARE = 16n;

export interface ManyMappings {
  readonly memory: GuestMemory;
  readonly file: MemoryFile;
  readonly region: Region;
  /** The offset of the unmapped pages in the region. */
  readonly spare: bigint;
}

/**
 * Creates one region with `count` mappings of one page of a file, `gap` pages apart. Without gaps the kernel merges
 * them into one mapping of this process, which can have at most 65530 (`vm.max_map_count`); the IOMMU has one for
 * each.
 */
export async function manyMappings(count: number, gap: bigint): Promise<ManyMappings> {
  const memory = await GuestMemory.create();
  const file = MemoryFile.create(BigInt(count) * PAGE, { name: 'bench' });
  const stride = (1n + gap) * PAGE;
  const spare = BigInt(count) * stride;
  const range = AddressRange.of(0n, spare + SPARE * PAGE);
  const region = await memory.regions.addRegion({ name: 'many', range });
  // One change by the internal function: the public one makes one change per mapping, which is not measured here.
  const space = guestAddressSpaceOf(memory);
  await space.change((draft) => {
    const id = draft.regions().find(({ name }) => name === 'many')?.id ?? NaN;
    for (let index = 0n; index < count; index++) {
      const memory = openBacking({ file, offset: index * PAGE }, PAGE);
      draft.addMapping(id, { range: AddressRange.of(index * stride, PAGE), memory, writable: true });
    }
  });
  await region.mapToGuest();
  return { memory, file, region, spare };
}

/** Creates `count` adjoining active regions of a page each, without memory. */
export async function manyRegions(count: number): Promise<GuestMemory> {
  const memory = await GuestMemory.create();
  const space = guestAddressSpaceOf(memory);
  await space.change((draft) => {
    for (let index = 1n; index <= count; index++) {
      const state = newRegion(space, { name: `region ${index}`, length: PAGE, kind: 'ram', priority: 0 });
      draft.add(state);
      draft.activate(state.id, AddressRange.of(index * PAGE, PAGE), true);
    }
  });
  return memory;
}
