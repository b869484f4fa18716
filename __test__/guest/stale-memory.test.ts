// Memory that could not be hidden when it was time: it is in nobody's way, and goes as soon as it can.
import test from 'ava';
import { rejectsCode } from '../support/errors.ts';
import { heal, inject, countNative } from '../support/faults.ts';
import { guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget, RefuseAt } from '../support/recording-target.ts';

countNative();

test.serial(
  'what can not be hidden in undoing hinders no change elsewhere, and gives way to the next one there',
  async (t) => {
    const memory = await guest(t);
    const target = new RecordingTarget({ needsVa: true });
    await memory.dmaMappers.addDmaMapper(target);
    const regions = [];
    for (const page of [4, 8]) {
      const region = await memory.regions.addRegion({ name: `r${page}`, range: pages(page, 1) });
      await region.addMapping({ range: pages(0, 1), backing: 'private' });
      regions.push(region);
    }
    const [here, elsewhere] = regions;
    target.judge = new RefuseAt('map', 0).judge;
    inject((_step, what) => what === 'native: unmap');
    t.teardown(() => void heal());
    await rejectsCode(t, here?.mapToGuest() ?? Promise.resolve(), 'ERR_ROLLBACK_FAILED');
    await elsewhere?.mapToGuest();
    t.deepEqual(target.heldText(), ['0x8000..0x9000 rw r8']);
    heal();
    await here?.mapToGuest();
    t.deepEqual(target.heldText(), ['0x4000..0x5000 rw r4', '0x8000..0x9000 rw r8']);
  },
);

test.serial('never leases memory that a rollback could not unmap in place of the memory before', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 2, 0x50);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  await region.mapToGuest();
  const target = new RecordingTarget({ needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  target.judge = new RefuseAt('map', 0).judge;
  let unmaps = 0;
  inject((_step, what) => what === 'native: unmap' && unmaps++ > 0); // the old memory still goes
  t.teardown(() => void heal());
  const change = region.addMapping({ range: pages(0, 1), backing: { file, offset: PAGE } });
  await rejectsCode(t, change, 'ERR_ROLLBACK_FAILED');
  t.deepEqual(target.held(), []);
  t.like(handle.status()[0], { state: 'failed', code: 'ERR_VA_NOT_MAPPED' });
  await rejectsCode(t, region.mapToGuest(), 'ERR_OVERLAP', 'as long as it is there');
  t.deepEqual(target.held(), []);

  heal();
  await region.mapToGuest();
  t.is(target.held()[0]?.hostMemory?.read(0n, 1)[0], 0x50);
});
