/**
 * Guest memory with many small sub-mappings.
 */
import { AddressRange, GuestMemory, MemoryFile, type Region } from '../ts/index.ts';
import { addressSpaceOf } from '../ts/guest/guest-memory.ts';
import { newRegion } from '../ts/guest/region-manager.ts';
import { openStore } from '../ts/memory/backing.ts';

export const PAGE = 4096n;

/** Pages of the region after its last mapping, without memory. */
const SPARE = 16n;

export interface ManyMappings {
  readonly memory: GuestMemory;
  readonly file: MemoryFile;
  readonly region: Region;
  /** Offset in the region of its spare pages. */
  readonly spare: bigint;
}

/**
 * One region with `count` mappings of a page of one file, one after the other with `gap` pages between. Without gaps
 * the kernel makes one of them in this process, where it has 65530 (`vm.max_map_count`) at most; they are many for the
 * IOMMU.
 */
export async function manyMappings(count: number, gap: bigint): Promise<ManyMappings> {
  const memory = await GuestMemory.create();
  const file = MemoryFile.create(BigInt(count) * PAGE, { name: 'bench' });
  const stride = (1n + gap) * PAGE;
  const spare = BigInt(count) * stride;
  const range = AddressRange.of(0n, spare + SPARE * PAGE);
  const region = await memory.regions.addRegion({ name: 'many', range });
  // In one change, by the inner door: the public one makes a change of each, which is not what is measured here.
  const space = addressSpaceOf(memory);
  await space.change((draft) => {
    const id = draft.regions().find(({ name }) => name === 'many')?.id ?? NaN;
    for (let index = 0n; index < count; index++) {
      const store = openStore({ file, offset: index * PAGE }, PAGE);
      draft.map(id, { range: AddressRange.of(index * stride, PAGE), store, writable: true });
    }
  });
  await region.map();
  return { memory, file, region, spare };
}

/** `count` active regions of a page each, one after the other, without memory in them. */
export async function manyRegions(count: number): Promise<GuestMemory> {
  const memory = await GuestMemory.create();
  const space = addressSpaceOf(memory);
  await space.change((draft) => {
    for (let index = 1n; index <= count; index++) {
      const state = newRegion(space, { name: `region ${index}`, length: PAGE, kind: 'ram', priority: 0 });
      draft.add(state);
      draft.place(state.id, AddressRange.of(index * PAGE, PAGE), true);
    }
  });
  return memory;
}
