/**
 * More sub-mappings than this process can have mappings.
 */
import test from 'ava';
import { AddressRange, MemoryFile } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { guestAddressSpaceOf } from '../../ts/guest/guest-memory.ts';
import { openBacking } from '../../ts/memory/backing.ts';
import { rejectsCode } from '../support/errors.ts';
import { PAGE, at, guest, pages } from '../support/pages.ts';

test('rejects more mappings than the process can have in time, and leaves nothing', async (t) => {
  const count = 40_000;
  const memory = await guest(t, { addressWidth: 40 });
  using file = MemoryFile.create(at(count), { name: 'scattered' });
  const region = await memory.regions.addRegion({ name: 'scattered', range: pages(0, 2 * count) });
  const space = guestAddressSpaceOf(memory);
  await space.change((draft) => {
    const [id = 0] = draft.regions().map((one) => one.id);
    for (let page = 0; page < count; page++) {
      const range = AddressRange.of(at(2 * page), PAGE);
      draft.addMapping(id, { range, memory: openBacking({ file, offset: at(page) }, PAGE), writable: true });
    }
  });
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);
  const error = await rejectsCode(t, region.mapToGuest(), 'ERR_MAPPING_LIMIT');
  t.regex(error.message, /vm\.max_map_count/);
  t.deepEqual([iommu.mappings(), memory.inspect().flat], [[], []]);

  await region.removeMappings(AddressRange.of(at(2000), region.range.length - at(2000)));
  await region.mapToGuest();
  t.is(iommu.mappings().length, 1000, 'fewer succeed in the same process');
});
