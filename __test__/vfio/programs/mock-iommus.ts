/**
 * A process with devices behind the mock IOMMU of the kernel, and others behind the machine's. It is started as
 * `mock-iommus.ts LOGGED LOGGED WITHOUT_LOG EDU NVME`, with `preload/mock-iommu.c`. The first three are behind the
 * mock.
 */
import assert from 'node:assert/strict';
import {
  AddressRange,
  type DirtyPages,
  type DirtyTracking,
  GuestMemory,
  MemoryFile,
  PeerDmaError,
  type Region,
  type VfioContainerManager,
} from '../../../ts/index.ts';
import { Edu } from '../../../examples/devices/edu.ts';
import { newManager } from '../support/backend.ts';
import { APERTURE, MockIommu } from '../support/mock-iommu.ts';
import { openVfioFiles } from '../support/open-files.ts';
import { RAM_LENGTH, RAM_START, SINK, peerBar, pattern, send } from '../support/rig.ts';
import { runScenarios } from '../support/run-scenarios.ts';

const PAGE = 4096n;
const RAM = AddressRange.of(RAM_START, RAM_LENGTH);
const PAGES = AddressRange.of(0x2000_0000n, 128n * PAGE);
const [first = '', second = '', unlogged = '', engine = '', peer = ''] = process.argv.slice(2);
const mock = new MockIommu();
/** Places in the setting. */
const [FIRST, SECOND] = [0, 1] as const;

interface Guest {
  readonly memory: GuestMemory;
  readonly manager: VfioContainerManager;
  /** RAM whose pages are mappings each: the IOMMU has no larger page, and logs each. */
  readonly pages: Region;
}

async function withGuest<T>(run: (guest: Guest) => Promise<T>, ram: AddressRange = RAM): Promise<T> {
  const memory = await GuestMemory.create({ ram: [{ start: ram.start, length: ram.length }] });
  const manager = newManager(memory);
  using file = MemoryFile.create(PAGES.length, { name: 'pages' });
  try {
    const pages = await memory.regions.addRegion({ name: 'pages', range: PAGES });
    for (let at = 0n; at < PAGES.length; at += PAGE) {
      const backing = { file, offset: PAGES.length - PAGE - at };
      await pages.addMapping({ range: AddressRange.of(at, PAGE), backing });
    }
    await pages.mapToGuest();
    return await run({ memory, manager, pages });
  } finally {
    await manager.close();
    await memory.close();
    assert.deepEqual(openVfioFiles(), []);
  }
}

/** The numbers of the dirty pages, from the start of the range on. */
function numbers(dirty: DirtyPages): number[] {
  const pages: number[] = [];
  for (const { start, end } of dirty.ranges())
    for (let at = start; at < end; at += PAGE) pages.push(Number((at - dirty.range.start) / PAGE));
  return pages;
}

const read = async (tracking: DirtyTracking, range: AddressRange = PAGES): Promise<number[]> =>
  numbers(await tracking.readDirty(range));

function written(device: number, pages: readonly number[], range: AddressRange = PAGES): void {
  assert.equal(mock.write(device, range.start, range.length, pages), String(pages.length));
}

async function rejects(code: string, act: () => Promise<unknown>): Promise<PeerDmaError> {
  try {
    await act();
  } catch (error) {
    assert.ok(error instanceof PeerDmaError);
    assert.equal(error.code, code, error.message);
    return error;
  }
  throw new Error(`no ${code}`);
}

await runScenarios({
  'returns each page that a device has written once': () =>
    withGuest(async ({ manager }) => {
      await manager.open(first);
      const tracking = await manager.startDirtyTracking();
      assert.deepEqual(await read(tracking), []);
      const some = [0, 1, 5, 63, 64, 127];
      written(FIRST, some);
      assert.deepEqual(await read(tracking), some);
      assert.deepEqual(await read(tracking), []);
      written(FIRST, [5]);
      assert.deepEqual(await read(tracking), [5], 'written again');
      const all = Array.from({ length: 128 }, (_, page) => page);
      written(FIRST, all);
      assert.deepEqual(await read(tracking), all);
    }),

  'returns all pages of a larger page of the IOMMU, in which a device has written one': () =>
    withGuest(async ({ manager }) => {
      await manager.open(first);
      const tracking = await manager.startDirtyTracking();
      const some = [3, 70, 1000];
      written(FIRST, some, RAM);
      const dirty = await read(tracking, RAM);
      assert.deepEqual(
        some.filter((page) => !dirty.includes(page)),
        [],
      );
      assert.ok(dirty.length < 1024, `${dirty.length} pages are not all`);
      assert.deepEqual(await read(tracking, RAM), []);
      return [`${some.length} pages were written, and ${dirty.length} reported`];
    }),

  'keeps the dirty pages outside of the requested range for a later call': () =>
    withGuest(async ({ manager }) => {
      await manager.open(first);
      const tracking = await manager.startDirtyTracking();
      written(FIRST, [3, 70, 100]);
      const part = AddressRange.of(PAGES.start + 65n * PAGE, 6n * PAGE);
      assert.deepEqual(await read(tracking, part), [5]);
      assert.deepEqual(await read(tracking, part), []);
      await rejects('ERR_UNALIGNED', () => read(tracking, AddressRange.of(PAGES.start + 1n, PAGE)));
      const around = AddressRange.between(PAGES.start - PAGE, PAGES.end + PAGE);
      assert.deepEqual(await read(tracking, around), [4, 101]);
    }),

  'returns a page that was written before it was unmapped, when RAM is mapped there again': () =>
    withGuest(async ({ manager, pages }) => {
      await manager.open(first);
      const tracking = await manager.startDirtyTracking();
      written(FIRST, [7, 63]);
      await pages.unmapFromGuest();
      assert.deepEqual(await read(tracking), []);
      await pages.mapToGuest();
      assert.deepEqual(await read(tracking), [7, 63]);
      assert.deepEqual(await read(tracking), []);
    }),

  'logs a device that opens while tracking is active, and stops the log of all': () =>
    withGuest(async ({ manager }) => {
      await manager.open(first);
      const tracking = await manager.startDirtyTracking();
      const later = await manager.open(second);
      assert.equal(manager.inspect().containers.length, 1);
      written(SECOND, [9]);
      written(FIRST, [10]);
      assert.deepEqual(await read(tracking), [9, 10]);
      written(SECOND, [11]);
      await later.close();
      written(FIRST, [12]);
      assert.deepEqual(await read(tracking), [11, 12]);
      await tracking.stop();
      assert.equal(mock.write(FIRST, PAGES.start, PAGE, [0]), 'Invalid argument', 'the kernel does not log');
      const again = await manager.startDirtyTracking();
      assert.deepEqual(await read(again), []);
    }),

  'refuses tracking while the IOMMU of one of the devices does not log': () =>
    withGuest(async ({ manager }) => {
      await manager.open(first);
      const without = await manager.open(unlogged);
      const error = await rejects('ERR_UNSUPPORTED', () => manager.startDirtyTracking());
      assert.match(error.message, /the IOMMU of 1 attached device\(s\) does not support dirty-page logging/);
      await without.close();
      const tracking = await manager.startDirtyTracking();
      written(FIRST, [1]);
      await rejects('ERR_UNSUPPORTED', () => manager.open(unlogged));
      assert.deepEqual(await read(tracking), [1], 'the log is as before');
      await rejects('ERR_UNSUPPORTED', () => manager.open(engine));
      written(FIRST, [2]);
      assert.deepEqual(await read(tracking), [2]);
    }),

  'maps memory into two IOMMUs that share an address space, and restricts it to what both translate': () =>
    withGuest(async ({ memory, manager }) => {
      const edu = new Edu(await manager.open(engine));
      const ranges = (): unknown => manager.inspect().containers.map(({ iovaRanges }) => iovaRanges);
      const before = ranges();
      const mocked = await manager.open(first);
      const { start, end } = APERTURE;
      assert.deepEqual(ranges(), [[{ start: `0x${start.toString(16)}`, end: `0x${end.toString(16)}` }]]);
      const bytes = pattern(3);
      await send(memory, edu, bytes, SINK);
      assert.deepEqual(memory.read(SINK, bytes.length), bytes, 'the edu does DMA as before');
      const high = await memory.regions.addRegion({ name: 'high', range: AddressRange.of(end, PAGE) });
      await high.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
      await rejects('ERR_IOVA_UNREACHABLE', () => high.mapToGuest());
      await mocked.close();
      assert.deepEqual(ranges(), before, 'all that the IOMMU of the edu translates');
      await high.mapToGuest();
    }),

  'opens a device in a new address space if its IOMMU cannot translate what is mapped in the existing one': () =>
    withGuest(async ({ memory, manager }) => {
      const edu = new Edu(await manager.open(engine));
      const bar = peerBar(await manager.open(peer));
      const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
      await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
      await window.mapToGuest(0x1_0000_0000n);
      await manager.open(first);
      await manager.open(second);
      const devices = manager.inspect().containers.map(({ groups }) => groups.flatMap((group) => group.devices));
      assert.deepEqual(devices, [
        [engine, peer],
        [first, second],
      ]);
      const [own, other] = memory.inspect().targets.map(({ mappings }) => mappings);
      const states = (mappings = own): unknown[] =>
        mappings?.filter(({ region }) => region === 'bar2').map(({ state, code }) => [state, code]) ?? [];
      assert.deepEqual(states(own), [['mapped', undefined]]);
      assert.deepEqual(states(other), [['failed', 'ERR_IOVA_UNREACHABLE']]);
      assert.equal(
        other?.filter(({ state }) => state === 'mapped').length,
        own?.filter(({ kind }) => kind === 'ram').length,
      );
      const bytes = pattern(4);
      await send(memory, edu, bytes, SINK);
      assert.deepEqual(memory.read(SINK, bytes.length), bytes);
      await rejects('ERR_UNSUPPORTED', () => manager.startDirtyTracking());
      assert.equal(mock.write(FIRST, PAGES.start, PAGE, [0]), 'Invalid argument', 'no address space logs');
    }),

  'does not open a device whose IOMMU cannot translate RAM': () =>
    withGuest(
      async ({ memory, manager }) => {
        await manager.open(engine);
        const before = [memory.inspect(), manager.inspect(), openVfioFiles()];
        const error = await rejects('ERR_IOVA_UNREACHABLE', () => manager.open(first));
        assert.match(
          error.message,
          /cannot map "ram0" at 0x0\.\.0x40000.*Place it within one of 0x1000000\.\.0x80000000/,
        );
        assert.deepEqual([memory.inspect(), manager.inspect(), openVfioFiles()], before);
      },
      AddressRange.of(0n, 64n * PAGE),
    ),
});
