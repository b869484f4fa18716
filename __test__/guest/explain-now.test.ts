// GuestMemory.explain() of one address. It returns the same as explain() of a whole snapshot, and reads only the memory
// at that address.
import fc from 'fast-check';
import test from 'ava';
import { AddressRange, GuestMemory, type Region } from '../../ts/index.ts';
import { explain } from '../../ts/inspect.ts';
import { guestAddressSpaceOf } from '../../ts/guest/guest-memory.ts';
import { newRegion } from '../../ts/guest/new-region.ts';
import { MANY, manyPages } from '../support/many-pages.ts';
import { PAGE, at, guest, pages } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';
import { valuesRead } from '../support/values-read.ts';

const PAGES = 16;

const anyRegion = fc.record({
  first: fc.nat(PAGES - 2),
  length: fc.integer({ min: 1, max: 6 }),
  priority: fc.nat(2),
  kind: fc.constantFrom('ram' as const, 'device' as const),
  memory: fc.array(fc.nat(5), { maxLength: 3 }),
  active: fc.boolean(),
});

test('returns the result of explain() of a snapshot at each address', async (t) => {
  const property = fc.asyncProperty(
    fc.array(anyRegion, { maxLength: 12 }),
    fc.nat(PAGES),
    fc.nat(12),
    async (regions, stuck, gone) => {
      await using memory = await GuestMemory.create({ addressWidth: 17 });
      const target = new RecordingTarget({ name: 'A' });
      await memory.dmaMappers.addDmaMapper(target);
      await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'off' }), { peerToPeer: 'off' });
      target.judge = ({ op, range }) =>
        (op === 'unmap' && range.start === at(stuck)) || (op === 'map' && range.start === at(stuck + 1))
          ? new Error('refused')
          : undefined;
      const made: Region[] = [];
      for (const { first, length, priority, kind, memory: backed, active } of regions) {
        const range = pages(first, length);
        const region = await memory.regions.addRegion({ name: `r${made.length}`, range, priority, kind });
        for (const page of backed.filter((one) => one < length)) {
          await region.addMapping({ range: pages(page, 1), backing: 'private' });
        }
        if (active) await region.mapToGuest().catch(() => {});
        made.push(region);
      }
      await made[gone]?.remove().catch(() => {});
      const snapshot = memory.inspect();
      for (let page = 0; page < 34; page++) {
        const address = at(page) + 0x10n;
        t.deepEqual(memory.explain(address), explain(snapshot, address));
        t.deepEqual(memory.explain(address, 'off'), explain(snapshot, address, 'off'));
      }
      target.closeWithMappings();
      await memory.dmaMappers.targetClosed(target);
    },
  );
  await fc.assert(property, { numRuns: 60 });
});

test.serial('reads only the mappings at the address', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(2), private: true }] });
  await memory.dmaMappers.addDmaMapper(new RecordingTarget());
  const addresses = [0n, PAGE, at(3), MANY + 0x10n, 1n << 40n];
  const explainAll = (): void => addresses.forEach((address) => void memory.explain(address));
  const space = guestAddressSpaceOf(memory);
  const grow = async (count: number): Promise<void> => {
    await space.change((draft) => {
      for (let page = 0; page < count; page++) {
        const region = newRegion(space, { name: 'region', length: PAGE, kind: 'ram', priority: 0 });
        draft.add(region);
        if (page % 2 === 0) draft.activate(region.id, AddressRange.of(2n * MANY + at(page), PAGE), true);
      }
    });
    await manyPages(t, memory, count); // the first ones hide the later ones
  };
  await grow(20);
  const few = await valuesRead(explainAll);
  await grow(2000);
  t.is(await valuesRead(explainAll), few);
});
