// The cost of a buffer among many regions. inspect() reads each mapping once for each list that has it.
import test from 'ava';
import { AddressRange } from '../../ts/index.ts';
import { DmaBuffer } from '../../ts/driver.ts';
import { guestAddressSpaceOf } from '../../ts/guest/guest-memory.ts';
import { newRegion } from '../../ts/guest/new-region.ts';
import { manyPages } from '../support/many-pages.ts';
import { PAGE, at, guest } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';
import { valuesRead } from '../support/values-read.ts';

test.serial('a DMA buffer finds its address without reading each of the regions that adjoin', async (t) => {
  const memory = await guest(t);
  const space = guestAddressSpaceOf(memory);
  let pages = 1;
  const grow = (count: number): Promise<void> =>
    space.change((draft) => {
      for (const end = pages + count; pages < end; pages++) {
        const region = newRegion(space, { name: 'region', length: PAGE, kind: 'ram', priority: 0 });
        draft.add(region);
        draft.activate(region.id, AddressRange.of(at(pages), PAGE), true);
      }
    });
  const allocate = async (): Promise<void> => (await DmaBuffer.allocate(memory, PAGE)).close();
  await grow(10);
  const few = await valuesRead(allocate);
  await grow(2000);
  t.is(await valuesRead(allocate), few);
});

test.serial('inspect() reads each mapping once: of its region, of the flat map, and of each target', async (t) => {
  const memory = await guest(t);
  for (const name of ['one', 'two']) await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name }));
  await manyPages(t, memory, 10);
  const few = await valuesRead(() => memory.inspect());
  await manyPages(t, memory, 1000); // the first ten hide as many of these
  t.is(await valuesRead(() => memory.inspect()), few + 1 + 1000 + 3 * 990);
});
