/**
 * A container that has lost its last group has lost its mappings with it, and is never taken to hold them still.
 */
import { NativeMemoryFile, NativeReservation, NativeVfioContainer, NativeVfioGroup } from '#native';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { writeFileSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { Edu } from '../../examples/devices/edu.ts';
import { AddressRange, GuestMemory, PeerDmaError } from '../../ts/index.ts';
import { testWith } from './support/devices.ts';
import { byPlace, mapInto, unmapAll, unmapFrom, words } from './support/native-calls.ts';
import { collectGarbage, groupOf, nativeEdu } from './support/native-rig.ts';
import { openVfioFiles } from './support/open-files.ts';
import { ENTRY_LIMIT, setEntryLimit } from './support/entry-limit.ts';
import { pinnedAtLast } from './support/pins.ts';
import { RAM_START, SINK, pattern, peerBar, rig, send } from './support/rig.ts';
import { newManager } from './support/backend.ts';

const IOVA = 0x1000_0000n;
const LENGTH = 0x20_0000n;
const BYTES = Edu.BUFFER_SIZE;
const FIRST = 0x1_0000_0000n;

testWith(
  { edu: 1 },
  'a container without a group has no mapping on record, takes none, and starts afresh with the next',
  async (t, { edu: [bdf = ''] }) => {
    const container = NativeVfioContainer.open();
    const reservation = new NativeReservation(40);
    const file = NativeMemoryFile.create(LENGTH, 'ram', 0);
    reservation.mapFile(0n, LENGTH, file, 0n, true, false);
    const map = (): void => mapInto(container, reservation, [], words(byPlace(IOVA, LENGTH)));
    const without = { message: /^ERR_CONTAINER_EMPTY/ };
    const written = async (edu: Edu, at: bigint): Promise<Uint8Array> => {
      const bytes = new Uint8Array(BYTES);
      await edu.store(IOVA + at, BYTES);
      file.read(at, bytes);
      return bytes;
    };

    t.throws(map, without, 'before the first group');
    await t.throwsAsync(container.setIommuAsync(), without);
    for (let round = 0n; round < 3n; round++) {
      const group = NativeVfioGroup.open(groupOf(bdf));
      t.teardown(() => group.close());
      await group.attachAsync(container);
      t.throws(map, without, 'before SET_IOMMU');
      t.throws(() => container.info(), without);
      await container.setIommuAsync();
      const all = container.info().dmaAvail;
      const device = await group.openDeviceAsync(bdf);
      t.teardown(() => device.close());
      const edu = nativeEdu(bdf, device);
      const at = round * 0x1_0000n;
      file.write(at, pattern(50));
      t.deepEqual(await written(edu, at), pattern(50), 'nothing of the round before is mapped');
      map();
      t.is(container.mappingCount, 1);
      t.is(container.info().dmaAvail, (all ?? NaN) - 1);
      await edu.load(IOVA + at, BYTES);
      file.write(at, new Uint8Array(BYTES));
      t.deepEqual(await written(edu, at), pattern(50));
      device.close();
      t.is(container.mappingCount, 1, 'the device alone takes nothing with it');
      group.close();
      t.is(container.mappingCount, 0);
      t.is(await pinnedAtLast(), 0, 'the kernel has let go of it');
      t.throws(map, without, 'without a group');
      t.throws(() => container.info(), without);
      unmapFrom(container, IOVA, LENGTH);
      unmapAll(container);
    }
    reservation.unmap(0n, LENGTH);
    reservation.close();
    container.close();
  },
);

testWith(
  { edu: 2 },
  'mappings last as long as any group, and go with the last, though nobody closed it',
  async (t, { edu: [first = '', second = ''] }) => {
    const container = NativeVfioContainer.open();
    const other = NativeVfioContainer.open();
    const reservation = new NativeReservation(40);
    const file = NativeMemoryFile.create(LENGTH, 'ram', 0);
    reservation.mapFile(0n, LENGTH, file, 0n, true, false);
    const request = words(byPlace(IOVA, LENGTH));
    // In a function of its own, which leaves no reference behind.
    const lose = async (): Promise<void> => {
      const groups = [first, second].map((bdf) => NativeVfioGroup.open(groupOf(bdf)));
      for (const group of groups) await group.attachAsync(container);
      await container.setIommuAsync();
      mapInto(container, reservation, [], request);
      groups[0]?.close();
    };
    await lose();
    t.is(container.mappingCount, 1);

    // A container beside it that lives on.
    const neighbour = NativeVfioGroup.open(groupOf(first));
    t.teardown(() => neighbour.close());
    await neighbour.attachAsync(other);
    await other.setIommuAsync();
    mapInto(other, reservation, [], request);
    const device = await neighbour.openDeviceAsync(first);
    t.teardown(() => device.close());
    const edu = nativeEdu(first, device);

    await collectGarbage();
    t.is(container.mappingCount, 0, 'the group has been lost');
    t.throws(() => mapInto(container, reservation, [], request), { message: /^ERR_CONTAINER_EMPTY/ });
    t.is(other.mappingCount, 1);
    file.write(0n, pattern(51));
    await edu.load(IOVA, BYTES);
    file.write(0n, new Uint8Array(BYTES));
    await edu.store(IOVA, BYTES);
    const bytes = new Uint8Array(BYTES);
    file.read(0n, bytes);
    t.deepEqual(bytes, pattern(51), 'the neighbour keeps its mapping');
    t.throws(() => reservation.unmap(0n, LENGTH), { message: /^ERR_VA_IN_USE/ }, 'for the neighbour');
    device.close();
    neighbour.close();
    reservation.unmap(0n, LENGTH);
    reservation.close();
    container.close();
    other.close();
  },
);

testWith(
  { edu: 2, ivshmem: 1 },
  'the device that comes after the last one finds everything mapped anew',
  async (t, { edu: [one = '', two = ''], ivshmem: [peer = ''] }) => {
    const { memory, manager, open } = await rig(t);
    const beside = newManager(memory);
    t.teardown(() => beside.close());
    const bar = peerBar(await beside.open(peer));
    const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
    await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
    await window.mapToGuest(FIRST);
    const names = new Set<string | undefined>();
    // Looks at every turn of what follows an unmap: closing goes on in these, and on worker threads meanwhile.
    let looks = 0;
    let closing: Promise<void> = Promise.resolve();
    const looking: Promise<void>[] = [];
    const look = async (): Promise<void> => {
      let closed = false;
      void closing.finally(() => (closed = true));
      while (!closed) {
        await turn();
        const groups = openVfioFiles().filter((path) => /\/\d+$/.test(path));
        if (groups.length > 1) continue; // the peer's, which stays
        looks++;
        const own = memory.inspect().targets.filter(({ name }) => names.has(name));
        const mapped = own.flatMap(({ mappings }) => mappings);
        t.deepEqual(mapped, [], 'mapped, in a container without a group');
      }
    };
    const onUnmap = (): void => void looking.push(look());
    subscribe('peerdma:dma.unmap', onUnmap);
    t.teardown(() => unsubscribe('peerdma:dma.unmap', onUnmap));
    let last = await open(one);
    for (const [round, bdf] of [two, two, one].entries()) {
      names.add(manager.inspect().containers[0]?.name);
      closing = last.close();
      const opening = open(bdf); // behind it, not after it
      await closing;
      last = await opening;
      t.is(manager.inspect().containers.length, 1);
      t.false(names.has(manager.inspect().containers[0]?.name), 'a container of its own');
      const edu = new Edu(last);
      await send(memory, edu, pattern(round + 60), FIRST);
      await edu.copy(FIRST, SINK, BYTES);
      t.deepEqual(memory.read(SINK, BYTES), pattern(round + 60), 'RAM and BAR are mapped');
      t.is(memory.inspect().targets.length, 2);
    }
    await Promise.all(looking);
    t.true(looks > 0, 'it was looked at while there was no group');
  },
);

testWith(
  { any: 1 },
  'a replay that fails after the last device has gone leaves nothing, and can be had again',
  async (t, { any: [bdf = ''] }) => {
    const memory = await GuestMemory.create({
      ram: [0n, 1n, 2n].map((place) => ({ start: RAM_START + place * 0x100_0000n, length: 0x10_0000n })),
    });
    const manager = newManager(memory);
    t.teardown(async () => {
      await manager.close();
      await memory.close();
    });
    await (await manager.open(bdf)).close();
    setEntryLimit(t, 2);
    for (let attempt = 0; attempt < 2; attempt++) {
      const error = await t.throwsAsync(manager.open(bdf), { instanceOf: PeerDmaError, code: 'ERR_MAPPING_LIMIT' });
      t.is(error?.errno, 'ENOSPC');
      t.deepEqual([manager.inspect().containers, memory.inspect().targets, openVfioFiles()], [[], [], []]);
      t.is(await pinnedAtLast(), 0);
    }
    writeFileSync(ENTRY_LIMIT, '65535');
    await manager.open(bdf);
    t.is(manager.inspect().containers[0]?.dmaAvailable, 65535 - 3);
  },
);
