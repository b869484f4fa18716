/**
 * The life of containers, groups and devices.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { Edu } from '../../examples/devices/edu.ts';
import { AddressRange, type GuestMemory, MemoryFile, PeerDmaError } from '../../ts/index.ts';
import { testWith } from './support/devices.ts';
import { openVfioFiles } from './support/open-files.ts';
import { pinnedRoughly } from './support/pins.ts';
import { SINK, pattern, peerBar, rig, send } from './support/rig.ts';
import { BACKEND } from './support/backend.ts';

const BAR = 0x1_0000_0000n;

testWith(
  { any: 1 },
  'a device opens, closes and opens again; the last one closes the group and the container',
  async (t, { any: [bdf = ''] }) => {
    const { memory, manager, open } = await rig(t);
    for (let round = 0; round < 3; round++) {
      const device = await open(bdf);
      t.is(device.bdf, bdf);
      t.true(device.config.length >= 256n);
      t.not(device.config.read32(0n), 0xffff_ffff);
      t.like(manager.inspect().containers, [{ backend: BACKEND, pageSize: '0x1000' }]);
      t.deepEqual(
        manager.inspect().containers[0]?.groups.map(({ devices }) => devices),
        [[bdf]],
      );
      t.is(memory.inspect().targets.length, 1);
      await device.close();
      await device.close();
      t.deepEqual(manager.inspect().containers, []);
      t.deepEqual(memory.inspect().targets, []);
      t.throws(() => device.config.read32(0n), { instanceOf: PeerDmaError, code: 'ERR_CLOSED' });
      t.deepEqual(openVfioFiles(), [], 'no descriptor of VFIO is left open');
    }
  },
);

testWith(
  { edu: 2 },
  'groups share a container until the last of them closes',
  async (t, { edu: [first = '', second = ''] }) => {
    const { memory, manager, open } = await rig(t);
    const one = await open(first);
    const edu = new Edu(await open(second));
    t.is(manager.inspect().containers.length, 1);
    t.is(manager.inspect().containers[0]?.groups.length, 2);
    await one.close();
    t.is(manager.inspect().containers[0]?.groups.length, 1);
    await send(memory, edu, pattern(30), SINK);
    t.deepEqual(memory.read(SINK, 2048), pattern(30), 'the container kept its mappings');
  },
);

testWith(
  { any: 2 },
  'close() closes all devices in any order, and rejects new ones',
  async (t, { any: [first = '', second = ''] }) => {
    const { memory, manager, open } = await rig(t);
    const devices = await Promise.all([open(first), open(second)]);
    await manager.close();
    t.deepEqual(manager.inspect().containers, []);
    t.deepEqual(memory.inspect().targets, []);
    for (const device of devices) await device.close();
    await t.throwsAsync(open(first), { instanceOf: PeerDmaError, code: 'ERR_CLOSED' });
  },
);

testWith({ any: 1 }, 'guest memory can be closed before its devices', async (t, { any: [bdf = ''] }) => {
  const { memory, manager, open } = await rig(t);
  const device = await open(bdf);
  await memory.close();
  t.is(manager.inspect().containers[0]?.mappings, 0, 'nothing is mapped any more');
  if (BACKEND === 'type1') t.is(manager.inspect().containers[0]?.dmaAvailable, 65535, "the kernel's count is 0");
  await device.close();
  t.deepEqual(manager.inspect().containers, []);
});

testWith({ any: 1 }, 'a reset succeeds, or is rejected with the reason', async (t, { any }) => {
  const { open } = await rig(t);
  for (const bdf of any) {
    const device = await open(bdf);
    try {
      await device.reset();
      t.not(device.config.read32(0n), 0xffff_ffff);
    } catch (error) {
      t.like(error, { code: 'ERR_RESET_UNSUPPORTED', bdf });
    }
  }
});

testWith(
  { ivshmem: 1 },
  'accesses to a BAR are checked for bounds and alignment',
  async (t, { ivshmem: [bdf = ''] }) => {
    const { open } = await rig(t);
    const bar = (await open(bdf)).regions[2];
    if (bar === undefined) return t.fail('ivshmem has a BAR 2');
    bar.write64(8n, 0x1122_3344_5566_7788n);
    t.is(bar.read64(8n), 0x1122_3344_5566_7788n);
    t.is(bar.read32(8n), 0x5566_7788);
    bar.write32(12n, 0xffff_fff0);
    t.is(bar.read64(8n), 0xffff_fff0_5566_7788n);
    t.deepEqual([...bar.read(8n, 8)], [0x88, 0x77, 0x66, 0x55, 0xf0, 0xff, 0xff, 0xff]);
    for (const offset of [bar.length, bar.length - 4n, (1n << 64n) - 8n]) {
      t.throws(() => bar.read64(offset), {
        instanceOf: PeerDmaError,
        code: offset % 8n === 0n ? 'ERR_OUT_OF_RANGE' : 'ERR_UNALIGNED',
      });
      t.throws(() => bar.read(offset, 8), { instanceOf: PeerDmaError, code: 'ERR_OUT_OF_RANGE' });
    }
    t.throws(() => bar.read32(-4n), { instanceOf: PeerDmaError });
    t.throws(() => bar.read32(2n), { instanceOf: PeerDmaError, code: 'ERR_UNALIGNED' });
  },
);

testWith(
  { ivshmem: 1, nvme: 1 },
  'regions report their lengths and the areas that can be mapped',
  async (t, devices) => {
    const { open } = await rig(t);
    const shared = await open(devices.ivshmem[0] ?? '');
    t.deepEqual(
      shared.regions.map((region) => region?.length),
      [0x100n, undefined, 0x100_0000n, undefined, undefined, undefined, undefined],
    );
    t.deepEqual(shared.regions[2]?.mmapAreas.map(String), ['0x0..0x1000000']);
    // BAR 0 of the nvme has its MSI-X table, BAR 2 the controller memory buffer (from the kernel's resource file).
    const nvme = await open(devices.nvme[0] ?? '');
    t.deepEqual([nvme.regions[0]?.length, nvme.regions[2]?.length], [0x4000n, 0x40_0000n]);
    t.true(nvme.regions[0]?.msixMappable);
    t.false(shared.regions[2]?.msixMappable);
    t.is(nvme.config.mmapAreas.length, 0);
    t.throws(() => nvme.config.backing(), { instanceOf: PeerDmaError, code: 'ERR_NO_SUCH_REGION' });
  },
);

testWith({ any: 1 }, 'a device opens once', async (t, { any: [bdf = ''] }) => {
  const { manager, open } = await rig(t);
  const device = await open(bdf);
  await t.throwsAsync(open(bdf), { instanceOf: PeerDmaError, code: 'ERR_DEVICE_IN_USE' });
  t.deepEqual(
    manager.inspect().containers[0]?.groups.map(({ devices }) => devices),
    [[bdf]],
  );
  await device.close();
  t.is((await open(bdf)).bdf, bdf);
});

testWith(
  { edu: 1, ivshmem: 1 },
  'guest memory and devices can be closed at once while a BAR is mapped',
  async (t, devices) => {
    const { memory, manager, open } = await rig(t);
    await open(devices.edu[0] ?? '');
    const bar = (await open(devices.ivshmem[0] ?? '')).regions[2];
    if (bar === undefined) return t.fail('ivshmem has a BAR 2');
    const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
    await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
    await window.mapToGuest(0x1_0000_0000n);
    await Promise.all([memory.close(), manager.close()]);
    t.deepEqual(manager.inspect().containers, []);
    t.deepEqual(openVfioFiles(), []);
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'a device whose BAR another guest memory maps closes only after that unmaps it',
  async (t, devices) => {
    const mine = await rig(t);
    const theirs = await rig(t);
    const peer = await mine.open(devices.ivshmem[0] ?? '');
    const bar = peerBar(peer);
    const show = async (memory: GuestMemory): Promise<void> => {
      const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
      await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
      await window.mapToGuest(BAR);
    };
    await show(mine.memory);
    await show(theirs.memory);
    const edu = await theirs.edu(devices.edu[0] ?? '');
    for (const close of [() => peer.close(), () => mine.manager.close()]) {
      await t.throwsAsync(close(), { instanceOf: PeerDmaError, code: 'ERR_DEVICE_IN_USE' });
      t.is(mine.manager.inspect().containers[0]?.groups[0]?.devices[0], peer.bdf, 'it is still open');
    }
    await send(theirs.memory, edu, pattern(80), BAR);
    t.deepEqual(bar.read(0n, Edu.BUFFER_SIZE), pattern(80));
    await theirs.manager.close();
    await theirs.memory.close();
    await peer.close();
    t.deepEqual(mine.manager.inspect().containers, []);
    t.deepEqual(openVfioFiles(), []);
  },
);

testWith(
  { any: 2 },
  'inspect() works while memory is pinned, and a device that opens meanwhile joins afterwards',
  async (t, { any: [first = '', second = ''] }) => {
    const { memory, manager, open } = await rig(t);
    await open(first);
    // Enough memory to observe the pinning, in small pages.
    const length = 256n << 20n;
    using file = MemoryFile.create(length, { name: 'much' });
    const region = await memory.regions.addRegion({ name: 'much', range: AddressRange.of(BAR, length) });
    await region.addMapping({ range: AddressRange.of(0n, length), backing: { file, offset: 0n } });
    const before = manager.inspect().containers;
    const pinned = pinnedRoughly();
    let done = false;
    const mapping = region.mapToGuest().then(() => (done = true));
    const opening = open(second);
    while (pinnedRoughly() === pinned && !done) await turn();
    t.deepEqual(manager.inspect().containers, before);
    t.false(done);
    await mapping;
    await opening;
    const [{ mappings, groups } = {}] = manager.inspect().containers;
    t.is(mappings, (before[0]?.mappings ?? NaN) + 1);
    t.is(groups?.length, 2);
    await region.remove();
  },
);
