/**
 * The kernel refuses a mapping for what it is, or where it is: memory that is no longer there, a BAR that is switched
 * off, an address that no IOMMU translates. What was there before is there still.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import {
  AddressRange,
  type DeviceMemory,
  GuestMemory,
  MemoryFile,
  PeerDmaError,
  type VfioContainerManager,
  type VfioDevice,
  type VfioRegion,
} from '../../ts/index.ts';
import { testWith } from './support/devices.ts';
import { RAM_LENGTH, RAM_START, SINK, pattern, peerBar, send } from './support/rig.ts';
import { PIECE, follow, reaches, scattered, standing } from './support/two-containers.ts';

const FIRST = 0x1_0000_0000n;
const SECOND = 0x2_0000_0000n;
const MSI_WINDOW = 0xfee0_0000n;

async function guest(t: ExecutionContext): Promise<GuestMemory> {
  const memory = await GuestMemory.create({ ram: [{ start: RAM_START, length: RAM_LENGTH }] });
  t.teardown(() => memory.close());
  return memory;
}

async function windowOf(memory: GuestMemory, bar: VfioRegion): Promise<DeviceMemory> {
  const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
  await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
  return window;
}

/** Bit 1 of the Command register of PCI config space. */
function decode(device: VfioDevice, on: boolean): void {
  const [low = 0, high = 0] = device.config.read(4n, 2);
  device.config.write(4n, Uint8Array.of(on ? low | 2 : low & ~2, high));
}

function barState(memory: GuestMemory): (string | undefined)[] {
  return memory.inspect().targets.map(({ mappings }) => mappings.find(({ region }) => region === 'bar2')?.state);
}

/** A file that can be truncated, unlike those that MemoryFile makes. */
function shrinkable(t: ExecutionContext, length: bigint): { fd: number; file: MemoryFile } {
  const folder = mkdtempSync('/dev/shm/peerdma-');
  const fd = openSync(`${folder}/memory`, 'wx+');
  rmSync(folder, { recursive: true });
  ftruncateSync(fd, Number(length));
  const file = MemoryFile.fromFd(fd);
  t.teardown(() => {
    file.close();
    closeSync(fd);
  });
  return { fd, file };
}

testWith(
  { edu: 1, ivshmem: 1 },
  'a BAR that is switched off fails a change where it is required, and succeeds once it is on',
  async (t, devices) => {
    const memory = await guest(t);
    const { manager, edu } = await follow(t, memory, devices.edu[0] ?? '', 'required');
    const peer = await manager.open(devices.ivshmem[0] ?? '');
    const bar = peerBar(peer);
    const window = await windowOf(memory, bar);
    decode(peer, false);
    const before = await standing(memory, manager);
    for (let attempt = 0; attempt < 2; attempt++) {
      const error = await t.throwsAsync(window.mapToGuest(FIRST), {
        instanceOf: PeerDmaError,
        code: 'ERR_MEMORY_FAULT',
      });
      t.is(error?.errno, 'EFAULT');
      t.deepEqual(await standing(memory, manager), before);
    }
    await send(memory, edu, pattern(21), SINK);
    t.deepEqual(memory.read(SINK, 2048), pattern(21), 'RAM is as it was');

    decode(peer, true);
    await window.mapToGuest(FIRST);
    t.true(await reaches(memory, edu, FIRST, bar));

    // Switched off in its place it could be neither moved nor put back: it is not touched.
    decode(peer, false);
    const inPlace = await standing(memory, manager);
    const error = await t.throwsAsync(window.mapToGuest(SECOND), {
      instanceOf: PeerDmaError,
      code: 'ERR_MEMORY_FAULT',
    });
    t.is(error?.range?.start, SECOND);
    t.is(error?.target, manager.inspect().containers[0]?.name);
    t.deepEqual(await standing(memory, manager), inPlace);
    decode(peer, true);
    t.true(await reaches(memory, edu, FIRST, bar), 'it is where it was');
    await window.mapToGuest(SECOND);
    t.true(await reaches(memory, edu, SECOND, bar));
    t.false(await reaches(memory, edu, FIRST, bar));
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'a BAR that is switched off is recorded, and mapped where it is when its address is given again',
  async (t, devices) => {
    const memory = await guest(t);
    const { manager, edu } = await follow(t, memory, devices.edu[0] ?? '');
    const peer = await manager.open(devices.ivshmem[0] ?? '');
    const bar = peerBar(peer);
    const window = await windowOf(memory, bar);
    await window.mapToGuest(FIRST);
    decode(peer, false);
    await window.mapToGuest(SECOND);
    t.deepEqual(barState(memory), ['failed']);
    t.is(manager.inspect().containers[0]?.dmaAvailable, 65535 - 1);
    decode(peer, true);
    await window.mapToGuest(SECOND);
    t.deepEqual(barState(memory), ['mapped']);
    t.true(await reaches(memory, edu, SECOND, bar));
    t.false(await reaches(memory, edu, FIRST, bar));
  },
);

testWith(
  { edu: 2 },
  'memory that was truncated under a mapping fails what needs it anew, and only that',
  async (t, { edu }) => {
    const memory = await guest(t);
    const { manager, edu: engine } = await follow(t, memory, edu[0] ?? '');
    const { fd, file } = shrinkable(t, 4n * PIECE);
    const region = await memory.regions.addRegion({ name: 'shrinks', range: AddressRange.of(FIRST, 4n * PIECE) });
    await region.addMapping({ range: AddressRange.of(0n, 4n * PIECE), backing: { file, offset: 0n } });
    await region.mapToGuest();
    const whole = await standing(memory, manager);
    ftruncateSync(fd, Number(PIECE));
    t.true(await reaches(memory, engine, FIRST, file), 'the page that is left');
    await send(memory, engine, pattern(30), FIRST + 2n * PIECE); // into pages that are pinned, and no file's any more

    const late = () => follow(t, memory, edu[1] ?? '');
    await t.throwsAsync(late(), { instanceOf: PeerDmaError, code: 'ERR_MEMORY_FAULT' });
    t.deepEqual(await standing(memory, manager), whole, 'a registration that fails changes nothing');

    const other = await scattered(t, memory, 'other', [SECOND]);
    await other.region.mapToGuest();
    t.true(await reaches(memory, engine, SECOND, other.file), 'what does not need it goes on');
    await other.region.unmapFromGuest();

    await region.unmapFromGuest();
    const without = await standing(memory, manager);
    for (let attempt = 0; attempt < 2; attempt++) {
      await t.throwsAsync(region.mapToGuest(), { instanceOf: PeerDmaError, code: 'ERR_MEMORY_FAULT' });
      t.deepEqual(await standing(memory, manager), without);
    }
    ftruncateSync(fd, Number(4n * PIECE));
    await region.mapToGuest();
    t.true(await reaches(memory, engine, FIRST + 3n * PIECE, file, 3n * PIECE));
    const { edu: second } = await late();
    t.true(await reaches(memory, second, FIRST + 3n * PIECE, file, 3n * PIECE));
  },
);

testWith(
  { edu: 1 },
  'memory that was truncated can not be moved, and stays where it is',
  async (t, { edu: [bdf = ''] }) => {
    const memory = await guest(t);
    const { manager, edu } = await follow(t, memory, bdf, 'required');
    const { fd, file } = shrinkable(t, 2n * PIECE);
    const window = memory.newDeviceMemory({ name: 'bar2', length: 2n * PIECE });
    await window.addMapping({ range: AddressRange.of(0n, 2n * PIECE), backing: { file, offset: 0n } });
    await window.mapToGuest(FIRST);
    ftruncateSync(fd, Number(PIECE));
    const before = await standing(memory, manager);
    const error = await t.throwsAsync(window.mapToGuest(SECOND), {
      instanceOf: PeerDmaError,
      code: 'ERR_MEMORY_FAULT',
    });
    t.regex(error?.message ?? '', /truncated/);
    t.is(error?.target, manager.inspect().containers[0]?.name);
    t.deepEqual(await standing(memory, manager), before);
    t.true(await reaches(memory, edu, FIRST, file), 'the page that is left');
    ftruncateSync(fd, Number(2n * PIECE));
    await window.mapToGuest(SECOND);
    t.true(await reaches(memory, edu, SECOND + PIECE, file, PIECE));
    t.false(await reaches(memory, edu, FIRST + PIECE, file, PIECE));
  },
);

testWith(
  { edu: 2 },
  'an address that no IOMMU translates, in the middle of a change or a replay of RAM: all is as before',
  async (t, { edu }) => {
    const memory = await guest(t);
    const one = await follow(t, memory, edu[0] ?? '');
    const places = [MSI_WINDOW, ...beyondAperture(one.manager)];
    for (const unreachable of places) {
      const { region, file } = await scattered(t, memory, 'reachable in part', [
        unreachable - 2n * PIECE,
        unreachable - PIECE,
        unreachable,
      ]);
      const before = await standing(memory, one.manager);
      const error = await t.throwsAsync(region.mapToGuest(), {
        instanceOf: PeerDmaError,
        code: 'ERR_IOVA_UNREACHABLE',
      });
      t.is(error?.errno, 'EINVAL');
      t.is(error?.range?.start, unreachable);
      t.deepEqual(await standing(memory, one.manager), before);
      t.false(await reaches(memory, one.edu, unreachable - PIECE, file, PIECE));
      await region.removeMappings(AddressRange.of(2n * PIECE, PIECE));
      await region.mapToGuest();
      t.true(await reaches(memory, one.edu, unreachable - PIECE, file, PIECE));
      await region.remove();
    }
    await one.manager.close();
    const { region } = await scattered(t, memory, 'all over', [
      MSI_WINDOW - 4n * PIECE,
      MSI_WINDOW,
      ...places.slice(1),
    ]);
    await region.mapToGuest(); // while nobody minds
    const before = await standing(memory, one.manager);
    await t.throwsAsync(follow(t, memory, edu[1] ?? ''), { instanceOf: PeerDmaError, code: 'ERR_IOVA_UNREACHABLE' });
    t.deepEqual(await standing(memory, one.manager), before, 'nothing is pinned any more');
    await region.remove();
    await follow(t, memory, edu[1] ?? '');
  },
);

testWith(
  { edu: 2, ivshmem: 1 },
  'a BAR that is moved to where no IOMMU translates stays where it is, or is recorded as missed',
  async (t, devices) => {
    const memory = await guest(t);
    const lenient = await follow(t, memory, devices.edu[1] ?? '');
    const bar = peerBar(await lenient.manager.open(devices.ivshmem[0] ?? ''));
    const strict = await follow(t, memory, devices.edu[0] ?? '', 'required');
    const window = await windowOf(memory, bar);
    await window.mapToGuest(FIRST);
    const places = [
      MSI_WINDOW - bar.length / 2n,
      ...beyondAperture(strict.manager).flatMap((end) => [end - bar.length / 2n, end]),
    ];
    for (const place of places) {
      const before = await standing(memory, lenient.manager, strict.manager);
      const error = await t.throwsAsync(window.mapToGuest(place), {
        instanceOf: PeerDmaError,
        code: 'ERR_IOVA_UNREACHABLE',
      });
      t.is(error?.errno, 'EINVAL');
      t.is(error?.target, strict.manager.inspect().containers[0]?.name, 'the one that requires it');
      t.deepEqual(await standing(memory, lenient.manager, strict.manager), before);
      for (const { edu } of [lenient, strict]) t.true(await reaches(memory, edu, FIRST, bar), 'still there');
    }
    await strict.manager.close();
    for (const place of places) {
      await window.mapToGuest(place);
      t.deepEqual(barState(memory), ['failed']);
      t.false(await reaches(memory, lenient.edu, FIRST, bar));
      await window.mapToGuest(FIRST);
      t.deepEqual(barState(memory), ['mapped']);
      t.true(await reaches(memory, lenient.edu, FIRST, bar));
    }
  },
);

/**
 * The first address that the IOMMU has no bits for; none where the guest has none for it either. The testbed makes a guest
 * for that: `--address-bits 39`.
 */
function beyondAperture(manager: VfioContainerManager): bigint[] {
  const end = BigInt(manager.inspect().containers[0]?.iovaRanges.at(-1)?.end ?? 0);
  return end < 1n << 40n ? [end] : [];
}
