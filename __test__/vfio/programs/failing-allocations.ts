/**
 * A process in which each allocation of the kernel in an operation fails, one after another. It is started as
 * `failing-allocations.ts IVSHMEM IVSHMEM`, with `preload/fail-nth.c`.
 */
import assert from 'node:assert/strict';
import { AddressRange, GuestMemory, MemoryFile, type VfioDevice } from '../../../ts/index.ts';
import { BACKEND, newManager } from '../support/backend.ts';
import { titleOf } from '../support/fail-nth.ts';
import { FailingGuest } from '../support/failing-guest.ts';
import { peerBar } from '../support/rig.ts';
import { type Scenario, runScenarios } from '../support/run-scenarios.ts';

const PIECE = 0x1_0000n;
const START = 0x1000_0000n;
const ADDED = AddressRange.of(0x2000_0000n, 16n * PIECE);
const [LOW, HIGH] = [0x1_0000_0000n, 0x2_0000_0000n] as const;
const [first = '', second = ''] = process.argv.slice(2);
// Memory that exists already: its pages are not allocated in an ioctl.
const memory = await GuestMemory.create({
  ram: [
    { start: START, length: PIECE, prefault: true },
    { start: START + 2n * PIECE, length: PIECE, private: true, prefault: true },
  ],
});
const manager = newManager(memory, { peerToPeer: 'required' });

const guest = new FailingGuest(memory, manager);
/** Ioctls in which allocations fail. With iommufd, Linux 7.3 allocates nothing to unmap a BAR or to detach a device. */
const ioctls =
  BACKEND === 'type1'
    ? {
        attach: 'GROUP_SET_CONTAINER',
        map: 'IOMMU_MAP_DMA',
        unmap: 'IOMMU_UNMAP_DMA',
        unmapBar: 'IOMMU_UNMAP_DMA',
        detach: 'GROUP_UNSET_CONTAINER',
      }
    : {
        attach: 'DEVICE_ATTACH_IOMMUFD_PT',
        map: 'IOAS_MAP_FILE',
        unmap: 'IOAS_UNMAP',
        unmapBar: undefined,
        detach: undefined,
      };
const devices: VfioDevice[] = [];
const open = (bdf: string) => async (): Promise<void> => void devices.push(await manager.open(bdf));
/** Closes the device that was opened last. */
const close = async (): Promise<void> => {
  await devices.at(-1)?.close();
  devices.pop();
};

const file = MemoryFile.create(2n * PIECE, { name: 'added' });
const region = await memory.regions.addRegion({ name: 'added', range: ADDED });
await region.addMapping({ range: AddressRange.of(0n, PIECE), backing: { file, offset: 0n } });
const readOnly = { file, offset: PIECE };
await region.addMapping({ range: AddressRange.of(4n * PIECE, PIECE), backing: readOnly, writable: false });
await region.addMapping({ range: AddressRange.of(8n * PIECE, PIECE), backing: 'private' });
const [mapRegion, unmapRegion] = [() => region.mapToGuest(), () => region.unmapFromGuest()];

/** A BAR of the second device, mapped at an address or not. */
const withBar =
  (run: (map: (at: bigint) => () => Promise<void>, unmap: () => Promise<void>) => Promise<string[]>) =>
  async (): Promise<string[]> => {
    const device = devices.at(-1);
    if (device === undefined) throw new Error('no device is open');
    const bar = peerBar(device);
    const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
    await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
    const result = await run(
      (at) => () => window.mapToGuest(at),
      () => window.unmapFromGuest(),
    );
    await window.remove();
    assert.deepEqual(
      result.filter((failure) => failure.includes('ERR_MEMLOCK_LIMIT')),
      [],
      'BARs are not counted',
    );
    return result;
  };

// The BAR stays in quarantine until the process ends if its own container cannot unmap it (docs/guarantees.md).
const scenarios: Record<string, Scenario> = {
  'a device opens': () => guest.failEach({ run: open(first), undo: close, failsIn: ioctls.map }),
  'a second device opens': async () => {
    await open(first)();
    // EINVAL means that the device cannot share the address space: it gets another one.
    return guest.failEach({ run: open(second), undo: close, failsIn: ioctls.attach, hasOneResult: false });
  },
  'a region is mapped': async () => {
    await open(second)();
    return guest.failEach({ run: mapRegion, undo: unmapRegion, failsIn: ioctls.map });
  },
  'a region is unmapped': async () => {
    await mapRegion();
    const closeAndOpen = async (): Promise<void> => {
      await close();
      await close();
      await open(first)();
      await open(second)();
    };
    const unmapped = await guest.failEach({
      run: unmapRegion,
      undo: mapRegion,
      failsIn: ioctls.unmap,
      endQuarantine: closeAndOpen,
    });
    await unmapRegion();
    return unmapped;
  },
  'a BAR is mapped': withBar((map, unmap) => guest.failEach({ run: map(LOW), undo: unmap, failsIn: ioctls.map })),
  'a BAR is moved': withBar(async (map) => {
    await map(LOW)();
    return guest.failEach({ run: map(HIGH), undo: map(LOW), failsIn: ioctls.map });
  }),
  'a BAR is unmapped': withBar(async (map, unmap) => {
    await map(LOW)();
    return guest.failEach({ run: unmap, undo: map(LOW), failsIn: ioctls.unmapBar });
  }),
  'a device closes': () =>
    guest.failEach({
      run: close,
      undo: open(second),
      failsIn: ioctls.detach,
      isAtomic: false,
      endQuarantine: close,
    }),
  'the last device closes': async () => {
    await close();
    return guest.failEach({
      run: close,
      undo: open(first),
      failsIn: ioctls.unmap,
      isAtomic: false,
      endQuarantine: close,
    });
  },
};
await runScenarios(Object.fromEntries(Object.entries(scenarios).map(([what, run]) => [titleOf(what), run])));
await manager.close();
await memory.close();
file.close();
