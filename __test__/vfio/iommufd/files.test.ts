/**
 * iommufd maps memory by file: it does not have to be mapped in this process.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { Edu } from '../../../examples/devices/edu.ts';
import { AddressRange, GuestMemory, MemoryFile, PeerDmaError } from '../../../ts/index.ts';
import { newManager } from '../support/backend.ts';
import { testWith } from '../support/devices.ts';
import { pinnedAtRest } from '../support/pins.ts';
import { pattern, peerBar } from '../support/rig.ts';

const PAGE = 4096n;
const LENGTH = 2n << 20n;
const BAR = 0x1_0000_0000n;

/** Whether this process maps guest memory: a reservation, whole bytes of a VFIO device, or a memfd. */
function inProcess(): { reservation: boolean; device: boolean; memfds: string[] } {
  const lines = readFileSync('/proc/self/maps', 'utf8').trimEnd().split('\n');
  const length = (line: string): bigint => {
    const [, start = '0', end = '0'] = /^(\w+)-(\w+) /.exec(line) ?? [];
    return BigInt(`0x${end}`) - BigInt(`0x${start}`);
  };
  return {
    reservation: lines.some((line) => line.includes('---p') && length(line) >= 1n << 39n),
    device: lines.some((line) => line.includes('vfio-device') && length(line) >= 1n << 20n),
    memfds: lines.flatMap((line) => /memfd:(\S+)/.exec(line)?.[1] ?? []),
  };
}

testWith(
  { edu: 1, ivshmem: 1 },
  'RAM of a file and BARs are mapped without a mapping in this process; private RAM has one, and receives DMA too',
  async (t, { edu: [engine = ''], ivshmem: [peerBdf = ''] }) => {
    using file = MemoryFile.create(LENGTH, { name: 'ram-by-file' });
    await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: LENGTH, file }] });
    await using manager = newManager(memory);
    const pinned = await pinnedAtRest();
    const edu = new Edu(await manager.open(engine));
    const bar = peerBar(await manager.open(peerBdf));
    const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
    await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
    await window.mapToGuest(BAR);
    t.deepEqual(inProcess(), { reservation: false, device: false, memfds: [] });
    t.is(BigInt((await pinnedAtRest()) - pinned) * PAGE, LENGTH, 'RAM is pinned, the BAR is not');

    file.write(PAGE, pattern(1));
    await edu.copy(PAGE, BAR, Edu.BUFFER_SIZE);
    t.deepEqual(bar.read(0n, Edu.BUFFER_SIZE), pattern(1));

    const region = await memory.regions.addRegion({ name: 'private', range: AddressRange.of(0x4000_0000n, LENGTH) });
    await region.addMapping({ range: AddressRange.of(0n, LENGTH), backing: 'private' });
    await region.mapToGuest();
    t.true(inProcess().reservation);
    t.deepEqual(inProcess().memfds, [], 'and nothing else with it');
    await edu.copy(BAR, 0x4000_1000n, Edu.BUFFER_SIZE);
    t.deepEqual(memory.read(0x4000_1000n, Edu.BUFFER_SIZE), pattern(1));
    await region.remove();
    t.is(BigInt((await pinnedAtRest()) - pinned) * PAGE, LENGTH);
  },
);

testWith(
  { edu: 1 },
  'a file that was closed and truncated stays mapped with its old pages',
  async (t, { edu: [engine = ''] }) => {
    await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: LENGTH }] });
    await using manager = newManager(memory);
    const file = MemoryFile.create(LENGTH, { name: 'closed' });
    const region = await memory.regions.addRegion({ name: 'closed', range: AddressRange.of(0x4000_0000n, LENGTH) });
    await region.addMapping({ range: AddressRange.of(0n, LENGTH), backing: { file, offset: 0n } });
    await region.mapToGuest();
    file.close();
    const edu = new Edu(await manager.open(engine));
    memory.write(0x1000n, pattern(2));
    await edu.copy(0x1000n, 0x4000_0000n, Edu.BUFFER_SIZE);
    t.deepEqual(memory.read(0x4000_0000n, Edu.BUFFER_SIZE), pattern(2));
  },
);

testWith(
  { edu: 1 },
  'a file with pages that are allocated and not cleared keeps what a device writes',
  async (t, { edu: [engine = ''] }) => {
    const folder = mkdtempSync('/dev/shm/peerdma-');
    execFileSync('fallocate', ['--length', String(LENGTH), `${folder}/memory`]);
    const fd = openSync(`${folder}/memory`, 'r+');
    rmSync(folder, { recursive: true });
    using file = MemoryFile.fromFd(fd);
    closeSync(fd);
    await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: LENGTH }] });
    await using manager = newManager(memory);
    const region = await memory.regions.addRegion({ name: 'allocated', range: AddressRange.of(0x4000_0000n, LENGTH) });
    await region.addMapping({ backing: { file, offset: 0n } });
    await region.mapToGuest();
    const edu = new Edu(await manager.open(engine));
    memory.write(0x1000n, pattern(3));
    await edu.copy(0x1000n, 0x4000_0000n, Edu.BUFFER_SIZE);
    t.deepEqual(memory.read(0x4000_0000n, Edu.BUFFER_SIZE), pattern(3));
    t.deepEqual(memory.read(0x4000_1000n, Edu.BUFFER_SIZE), new Uint8Array(Edu.BUFFER_SIZE));
  },
);

testWith({ edu: 1 }, 'reports a file system without space for the pages', async (t, { edu: [engine = ''] }) => {
  const folder = mkdtempSync('/tmp/peerdma-');
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', folder]);
  const fd = openSync(`${folder}/memory`, 'wx+');
  execFileSync('umount', ['--lazy', folder]);
  ftruncateSync(fd, Number(LENGTH));
  using file = MemoryFile.fromFd(fd);
  closeSync(fd);
  await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: LENGTH }] });
  await using manager = newManager(memory);
  await manager.open(engine);
  const region = await memory.regions.addRegion({ name: 'full', range: AddressRange.of(0x4000_0000n, LENGTH) });
  await region.addMapping({ backing: { file, offset: 0n } });
  const error = await t.throwsAsync(region.mapToGuest(), { instanceOf: PeerDmaError, code: 'ERR_MEMORY_FAULT' });
  t.is(error?.errno, 'ENOSPC');
  t.regex(error?.message ?? '', /file system of fd \d+ has no space/);
});
