/**
 * Real DMA through addresses that only the replay and the updates of this package map in the IOMMU.
 */
import { AddressRange, AssignedDevice, MemoryFile, nvidiaP2pClique } from '../../ts/index.ts';
import { Edu } from '../../examples/devices/edu.ts';
import { testWith } from './support/devices.ts';
import { RAM_START, SINK, SOURCE, fetch, pattern, peerBar, rig, send } from './support/rig.ts';
import { newManager } from './support/backend.ts';

const FIRST = 0x1_0000_0000n;
const SECOND = 0x2_0000_0000n;

testWith({ edu: 1 }, 'DMA moves a pattern from RAM to a device and back to RAM', async (t, { edu: [bdf = ''] }) => {
  const { memory, edu: open } = await rig(t);
  const edu = await open(bdf);
  const bytes = pattern(1);
  await send(memory, edu, bytes, SINK);
  t.deepEqual(memory.read(SINK, bytes.length), bytes);
});

testWith(
  { edu: 1, ivshmem: 1 },
  "a device does DMA to another device's BAR at its current address",
  async (t, devices) => {
    const { memory, open, edu: openEdu } = await rig(t);
    const edu = await openEdu(devices.edu[0] ?? '');
    const bar = peerBar(await open(devices.ivshmem[0] ?? ''));
    const clear = () => bar.write(0n, new Uint8Array(Edu.BUFFER_SIZE));
    const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
    await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });

    clear();
    await send(memory, edu, pattern(2), FIRST);
    t.deepEqual(bar.read(0n, Edu.BUFFER_SIZE), new Uint8Array(Edu.BUFFER_SIZE), 'without an address nothing arrives');

    await window.mapToGuest(FIRST);
    await send(memory, edu, pattern(3), FIRST);
    t.deepEqual(bar.read(0n, Edu.BUFFER_SIZE), pattern(3), 'RAM → BAR');
    t.deepEqual(await fetch(memory, edu, FIRST, Edu.BUFFER_SIZE), pattern(3), 'BAR → RAM');
    const last = bar.length - 0x1000n;
    await send(memory, edu, pattern(4), FIRST + last);
    t.deepEqual(bar.read(last, Edu.BUFFER_SIZE), pattern(4), 'the last page of the BAR');

    await window.mapToGuest(SECOND);
    clear();
    await send(memory, edu, pattern(5), FIRST);
    t.deepEqual(bar.read(0n, Edu.BUFFER_SIZE), new Uint8Array(Edu.BUFFER_SIZE), 'the old address takes no bytes');
    await send(memory, edu, pattern(6), SECOND);
    t.deepEqual(bar.read(0n, Edu.BUFFER_SIZE), pattern(6), 'the new address does');

    await window.unmapFromGuest();
    clear();
    await send(memory, edu, pattern(7), FIRST);
    await send(memory, edu, pattern(8), SECOND);
    t.deepEqual(bar.read(0n, Edu.BUFFER_SIZE), new Uint8Array(Edu.BUFFER_SIZE), 'unmapped: neither does');
  },
);

testWith(
  { edu: 2, ivshmem: 1 },
  'a device that opens later in a second container reaches the BAR at once',
  async (t, devices) => {
    const { memory, open, manager } = await rig(t);
    const bar = peerBar(await open(devices.ivshmem[0] ?? ''));
    const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
    await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
    await window.mapToGuest(FIRST);

    const second = newManager(memory);
    t.teardown(() => second.close());
    const edu = new Edu(await second.open(devices.edu[1] ?? ''));
    t.is(manager.inspect().containers.length, 1);
    t.is(second.inspect().containers.length, 1);
    t.not(manager.inspect().containers[0]?.name, second.inspect().containers[0]?.name);
    await send(memory, edu, pattern(9), FIRST);
    t.deepEqual(bar.read(0n, Edu.BUFFER_SIZE), pattern(9));

    await window.mapToGuest(SECOND);
    await send(memory, edu, pattern(10), SECOND);
    t.deepEqual(bar.read(0n, Edu.BUFFER_SIZE), pattern(10), 'and after it moves');
  },
);

testWith({ edu: 1 }, 'a read-only region rejects DMA writes', async (t, { edu: [bdf = ''] }) => {
  const { memory, edu: open } = await rig(t);
  const edu = await open(bdf);
  using file = MemoryFile.create(0x10000n, { name: 'rom' });
  const rom = await memory.regions.addRegion({ name: 'rom', range: AddressRange.of(FIRST, 0x10000n) });
  await rom.addMapping({ range: AddressRange.of(0n, 0x10000n), backing: { file, offset: 0n } });
  file.write(0n, pattern(11));

  await rom.mapToGuest({ writable: false });
  await send(memory, edu, pattern(12), FIRST);
  t.deepEqual(file.read(0n, Edu.BUFFER_SIZE), pattern(11), 'no byte of the write arrived');
  t.deepEqual(await fetch(memory, edu, FIRST, Edu.BUFFER_SIZE), pattern(11), 'it can be read');

  await rom.mapToGuest({ writable: true });
  await send(memory, edu, pattern(12), FIRST);
  t.deepEqual(file.read(0n, Edu.BUFFER_SIZE), pattern(12), 'once writable it accepts the write');
  await rom.remove();
});

testWith(
  { edu: 1 },
  'a region of higher priority covers RAM for a device, and uncovers it again',
  async (t, { edu: [bdf = ''] }) => {
    const { memory, edu: open } = await rig(t);
    const edu = await open(bdf);
    using file = MemoryFile.create(0x1000n, { name: 'overlay' });
    const target = RAM_START + 0x30_0000n;
    const before = pattern(13);
    memory.write(target, before);
    const overlay = await memory.regions.addRegion({
      name: 'overlay',
      range: AddressRange.of(target, 0x1000n),
      priority: 200,
    });
    await overlay.addMapping({ range: AddressRange.of(0n, 0x1000n), backing: { file, offset: 0n } });
    await overlay.mapToGuest();
    await send(memory, edu, pattern(14), target);
    t.deepEqual(file.read(0n, Edu.BUFFER_SIZE), pattern(14));
    await overlay.unmapFromGuest();
    t.deepEqual(await fetch(memory, edu, target, Edu.BUFFER_SIZE), before, 'RAM below was not changed');
    await send(memory, edu, pattern(15), target);
    t.deepEqual(memory.read(target, Edu.BUFFER_SIZE), pattern(15));
    t.deepEqual(file.read(0n, Edu.BUFFER_SIZE), pattern(14));
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'a device reaches no trapped or mirrored page of a BAR, where the guest reads its own config space',
  async (t, devices) => {
    const { memory, open, edu: openEdu } = await rig(t);
    const edu = await openEdu(devices.edu[0] ?? '');
    const device = await open(devices.ivshmem[0] ?? '');
    const bar = peerBar(device);
    bar.write(0n, new Uint8Array(0x5000));
    const [trapped, mapped, mirror] = [0x1000n, 0x2000n, 0x3000n];
    await using peer = await AssignedDevice.create({
      device,
      memory,
      capabilities: [nvidiaP2pClique(9)],
      traps: [{ bar: 2, offset: trapped, length: 1n }],
      mirrors: [{ bar: 2, offset: mirror, length: 0x100n }],
    });
    await peer.configWrite(0x1c, 4, Number(FIRST >> 32n));
    await peer.configWrite(0x04, 2, 6);
    for (const offset of [trapped, mirror]) {
      await send(memory, edu, pattern(18), FIRST + offset);
      t.deepEqual(bar.read(offset, Edu.BUFFER_SIZE), new Uint8Array(Edu.BUFFER_SIZE), `no byte at ${offset}`);
    }
    await send(memory, edu, pattern(19), FIRST + mapped);
    t.deepEqual(bar.read(mapped, Edu.BUFFER_SIZE), pattern(19));

    peer.mmioWrite(FIRST + trapped, Uint8Array.of(1, 2, 3, 4));
    t.deepEqual(bar.read(trapped, 4), Uint8Array.of(1, 2, 3, 4), 'the guest reaches the device');
    const approval = Uint8Array.of(0x09, 0x00, 0x08, 0x50, 0x32, 0x50, 9 << 3, 0);
    t.deepEqual(peer.mmioRead(FIRST + mirror + 0xc8n, 8), approval);
    t.deepEqual(device.config.read(0xc8n, 8), new Uint8Array(8), 'the device has no such capability');

    await peer.mmioWrite(FIRST + mirror + 0x1cn, Uint8Array.of(Number(SECOND >> 32n), 0, 0, 0));
    await send(memory, edu, pattern(20), SECOND + mapped);
    t.deepEqual(bar.read(mapped, Edu.BUFFER_SIZE), pattern(20), 'moved through the mirror');
  },
);

testWith({ edu: 1, ivshmem: 1 }, 'closing a device unmaps its BAR from every IOMMU first', async (t, devices) => {
  const { memory, open, edu: openEdu } = await rig(t);
  const edu = await openEdu(devices.edu[0] ?? '');
  const peer = await open(devices.ivshmem[0] ?? '');
  const bar = peerBar(peer);
  const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
  await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
  await window.mapToGuest(FIRST);
  await send(memory, edu, pattern(16), FIRST);
  t.deepEqual(bar.read(0n, Edu.BUFFER_SIZE), pattern(16));

  await peer.close();
  t.false(memory.inspect().flat.some(({ region }) => region === 'bar2'));
  await send(memory, edu, pattern(17), FIRST);
  const again = peerBar(await open(devices.ivshmem[0] ?? ''));
  t.deepEqual(again.read(0n, Edu.BUFFER_SIZE), pattern(16), 'no byte arrived after close');
  t.deepEqual(memory.read(SOURCE, Edu.BUFFER_SIZE), pattern(17));
});
