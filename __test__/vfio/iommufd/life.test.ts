/**
 * Address spaces of iommufd come with their first device and go with the last, and leave nothing behind.
 */
import { readdirSync } from 'node:fs';
import { Edu } from '../../../examples/devices/edu.ts';
import { AddressRange, GuestMemory, PeerDmaError } from '../../../ts/index.ts';
import { newManager } from '../support/backend.ts';
import { testWith } from '../support/devices.ts';
import { collectGarbage } from '../support/native-rig.ts';
import { openVfioFiles } from '../support/open-files.ts';
import { pinnedAtRest } from '../support/pins.ts';
import { SINK, pattern, peerBar, rig, send } from '../support/rig.ts';

const FIRST = 0x1_0000_0000n;
const SECOND = 0x2_0000_0000n;
const MOVES = 1000;

testWith(
  { edu: 2, ivshmem: 1 },
  'all devices of a manager share one address space, which goes with the last of them',
  async (t, { edu: [first = '', second = ''], ivshmem: [peerBdf = ''] }) => {
    const { memory, manager, open } = await rig(t);
    const devices = [await open(first), await open(second), await open(peerBdf)];
    const [space, ...others] = manager.inspect().containers;
    t.deepEqual(others, []);
    t.is(space?.groups.length, 3);
    t.is(memory.inspect().targets.length, 1);
    t.is(openVfioFiles().filter((file) => file === '/dev/iommu').length, 1);
    for (const [index, device] of devices.entries()) {
      await device.close();
      t.is(manager.inspect().containers.length, index < 2 ? 1 : 0);
    }
    t.deepEqual(openVfioFiles(), []);
    t.deepEqual(memory.inspect().targets, []);
    t.like(manager.inspect(), { backend: 'iommufd' });
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'a thousand moves of a BAR take one dma-buf, and leave descriptors and mappings as they were',
  async (t, { edu: [engine = ''], ivshmem: [peerBdf = ''] }) => {
    const { memory, manager, open } = await rig(t);
    const edu = new Edu(await open(engine));
    const bar = peerBar(await open(peerBdf));
    const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
    await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
    await window.mapToGuest(FIRST);
    const held = () => ({
      descriptors: readdirSync('/proc/self/fd').length,
      dmaBufs: openVfioFiles().filter((file) => file.includes('dmabuf')).length,
      mappings: manager.inspect().containers.map(({ mappings }) => mappings),
    });
    await collectGarbage(); // of the tests before this one
    const before = held();
    t.is(before.dmaBufs, 1);
    const pinned = await pinnedAtRest();
    for (let move = 0; move < MOVES; move++) await window.mapToGuest(move % 2 === 0 ? SECOND : FIRST);
    t.deepEqual(held(), before);
    t.is(await pinnedAtRest(), pinned);
    await send(memory, edu, pattern(1), FIRST);
    t.deepEqual(bar.read(0n, Edu.BUFFER_SIZE), pattern(1));
    await window.unmapFromGuest();
    t.is(held().dmaBufs, 1, 'kept for the next time');
  },
);

testWith(
  { edu: 2, ivshmem: 1 },
  'a device that is closed is gone from every address space, those of other managers too',
  async (t, { edu: [first = '', second = ''], ivshmem: [peerBdf = ''] }) => {
    const { memory, manager, open } = await rig(t);
    const apart = newManager(memory);
    t.teardown(() => apart.close());
    const near = new Edu(await open(first));
    const far = new Edu(await apart.open(second));
    const peer = await open(peerBdf);
    const bar = peerBar(peer);
    const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
    await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
    await window.mapToGuest(FIRST);
    const counts = () => [manager, apart].map((one) => one.inspect().containers[0]?.mappings);
    t.deepEqual(counts(), [2, 2]);
    for (const [seed, edu] of [near, far].entries()) {
      await send(memory, edu, pattern(seed), FIRST);
      t.deepEqual(bar.read(0n, Edu.BUFFER_SIZE), pattern(seed));
    }
    await peer.close();
    t.deepEqual(counts(), [1, 1], 'RAM alone');
    t.deepEqual(
      openVfioFiles().filter((file) => file.includes('dmabuf')),
      [],
    );
    // Whoever has it next finds what was there when it was closed.
    const again = peerBar(await open(peerBdf));
    const found = again.read(0n, Edu.BUFFER_SIZE);
    for (const edu of [near, far]) await send(memory, edu, pattern(9), FIRST);
    t.deepEqual(again.read(0n, Edu.BUFFER_SIZE), found);
    await send(memory, near, pattern(10), SINK);
    t.deepEqual(memory.read(SINK, Edu.BUFFER_SIZE), pattern(10), 'all else works');
  },
);

testWith(
  { edu: 1 },
  'a replay that fails leaves no device, no address space and no descriptor',
  async (t, { edu: [bdf = ''] }) => {
    // The window in which writes are interrupts, which no IOMMU maps.
    await using memory = await GuestMemory.create({ ram: [{ start: 0xfe00_0000n, length: 32n << 20n }] });
    await using manager = newManager(memory);
    const error = await t.throwsAsync(manager.open(bdf), { instanceOf: PeerDmaError });
    t.is(error?.code, 'ERR_IOVA_UNREACHABLE');
    t.regex(error?.message ?? '', /0xfef00000/);
    t.deepEqual(manager.inspect().containers, []);
    t.deepEqual(memory.inspect().targets, []);
    t.deepEqual(openVfioFiles(), []);
  },
);
